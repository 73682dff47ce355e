"""Which requests the main loop answers itself, and that all others go to a thread."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterator

import pytest
from support.fakes import drawn_digit
from support.server import PATIENCE, Service, running, wait_until

from inkdigits.serving.inline_requests import MOST_BYTES, QUICK_ANSWERS, QUICK_S, Pace, is_whole
from inkdigits.serving.worker import BoundedWorker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads answer")


def request(body: bytes = b"picture", target: str = "/predict", headers: str = "") -> bytes:
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's and the service's end of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def test_short_request_that_is_here_is_whole_and_stays_where_it_is(pair) -> None:
    near, far = pair
    near.sendall(request())
    wait_until(lambda: is_whole(far))
    assert far.recv(MOST_BYTES) == request()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        request()[:20],
        request()[:-1],
        request() + request(),
        request(target="/predict?explain=true"),
        request(target="/predicted"),
        request(b'{"images": ["", ""]}'),
        request(b'{"image": "", "explain": true}'),
        request(bytes(MOST_BYTES)),
        request().replace(b"POST", b"PUT"),
        b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=[
        *("nothing", "half a head", "a byte less", "two", "a query", "another path", "a batch"),
        *("an explanation", "a long body", "another method", "in chunks", "no request"),
    ],
)
def test_anything_else_is_not(pair, sent: bytes) -> None:
    near, far = pair
    near.sendall(sent)
    near.shutdown(socket.SHUT_WR)
    # All of it is here once there is no more to come.
    far.settimeout(PATIENCE)
    wait_until(lambda: not sent or len(far.recv(2**20, socket.MSG_PEEK)) == len(sent))
    assert not is_whole(far)


def test_request_of_a_client_that_has_not_taken_its_last_answer_is_not_answered_at_once(
    pair,
) -> None:
    near, far = pair
    near.sendall(request())
    wait_until(lambda: is_whole(far))
    far.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            far.send(bytes(65536))
    assert not is_whole(far)


def test_connection_that_is_closed_has_no_request(pair) -> None:
    _, far = pair
    far.close()
    assert not is_whole(far)


def test_pace_is_quick_after_some_quick_answers_until_a_slow_one() -> None:
    pace = Pace()
    for _ in range(QUICK_ANSWERS):
        assert not pace.is_quick
        pace.saw(QUICK_S)
    assert pace.is_quick
    pace.saw(2 * QUICK_S)
    assert not pace.is_quick


def ask(connection: socket.socket) -> str:
    """Which thread has answered."""
    connection.sendall(request(drawn_digit()))
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}\n"):
        received = connection.recv(65536)
        assert received
        answer += received
    thread: str = json.loads(answer.partition(b"\r\n\r\n")[2])["model_version"]
    return thread


@contextlib.contextmanager
def asking(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def test_main_loop_answers_after_threads_have_been_quick() -> None:
    # However busy the machine is that this runs on, its answers are quick enough.
    with running("--name-thread", "--quick", "60", INKDIGITS_PAGE="off") as service:
        with asking(service) as one, asking(service) as other:
            assert ask(one) != "MainThread"
            wait_until(lambda: ask(one) == "MainThread")
            wait_until(lambda: ask(other) == "MainThread")
        # A request that comes in two parts is a thread's, and answered all the same.
        with asking(service) as late:
            whole = request(drawn_digit())
            late.sendall(whole[:100])
            late.settimeout(0.3)
            with pytest.raises(TimeoutError):
                late.recv(1)
            late.settimeout(PATIENCE)
            late.sendall(whole[100:])
            assert late.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    ("delay", "page"), [("0.1", "off"), ("0", "on")], ids=["slow answers", "a log is kept"]
)
def test_threads_go_on_answering_where_something_may_have_to_be_waited_for(
    delay: str, page: str
) -> None:
    with (
        running("--name-thread", "--delay", delay, INKDIGITS_PAGE=page) as service,
        asking(service) as connection,
    ):
        threads = {ask(connection) for _ in range(QUICK_ANSWERS + 8)}
    assert "MainThread" not in threads


class _Accepting(BoundedWorker):
    """Of a worker only what it takes to accept."""

    def __init__(self, waiting: int, answered: int, before: int, room: int) -> None:
        self._waiting, self._answered, self._answered_before = waiting, answered, before
        self.nr_conns, self.worker_connections = 0, room

    def _accept(self, listener: object) -> bool:
        if self._waiting:
            self._waiting -= 1
            self.nr_conns += 1
            return True
        return False


@pytest.mark.parametrize(
    ("waiting", "answered", "before", "room", "accepted"),
    [
        (30, 0, 0, 99, 1),  # an idle worker leaves the others to its siblings
        (30, 8, 3, 99, 8),
        (30, 0, 8, 99, 8),  # the listener came first in this round
        (5, 8, 0, 99, 5),
        (30, 8, 0, 6, 6),
    ],
)
def test_as_many_connections_are_taken_up_as_were_answered(
    waiting: int, answered: int, before: int, room: int, accepted: int
) -> None:
    worker = _Accepting(waiting, answered, before, room)
    worker.accept(None)
    assert worker.nr_conns == accepted
