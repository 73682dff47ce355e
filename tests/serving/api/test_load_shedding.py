"""What happens when there is more to do than can be done, and to clients that are slow or gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from support.fakes import FakeReader, drawn_digit
from support.scrape import fetch, value
from support.server import PATIENCE, Service, running, wait_until

from inkdigits.errors import ClientDisconnectedError, DeadlineExceededError, OverloadedError
from inkdigits.serving.api.load_shedding import Pressure, is_gone
from inkdigits.serving.app import create_app
from inkdigits.serving.turn import Turn, set_turn
from inkdigits.settings import Settings

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")

PREDICT = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    b"Content-Length: %d\r\n\r\n" % len(drawn_digit())
) + drawn_digit()
NOW = time.perf_counter


@pytest.fixture
def turn() -> Iterator[Turn]:
    one = Turn(NOW(), started=NOW())
    set_turn(one)
    yield one
    set_turn(None)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


def test_request_without_room_is_refused_unless_somebody_watches_over_the_service(
    turn: Turn,
) -> None:
    turn.is_refused = True
    pressure = Pressure(deadline=30)
    with pytest.raises(OverloadedError):
        pressure.admit("/predict")
    assert pressure.admit("/metrics") >= 0
    assert pressure.admit("/health/live") >= 0


def test_request_that_waited_for_longer_than_the_deadline_is_not_begun(turn: Turn) -> None:
    turn.arrived -= 31
    with pytest.raises(DeadlineExceededError, match="30 s"):
        Pressure(deadline=30).admit("/predict")
    assert Pressure(deadline=40).admit("/predict") == pytest.approx(31, abs=1)


def test_request_that_took_longer_to_arrive_than_the_deadline_is_not_read(turn: Turn) -> None:
    turn.arrived -= 31
    with pytest.raises(DeadlineExceededError):
        Pressure(deadline=30).proceed(NOW(), None)
    set_turn(None)
    Pressure(deadline=30).proceed(NOW(), None)
    with pytest.raises(DeadlineExceededError):
        Pressure(deadline=30).proceed(NOW() - 31, None)


def test_client_that_has_closed_the_connection_is_noticed(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    pressure = Pressure(deadline=30)
    near.sendall(b"the next request")
    assert not is_gone(far)
    pressure.proceed(NOW(), far)
    near.close()
    wait_until(lambda: is_gone(far))
    with pytest.raises(ClientDisconnectedError):
        pressure.proceed(NOW(), far)


@pytest.mark.parametrize("path", ["/predict", "/v2/models/inkdigits/infer"])
def test_refusal_has_the_documented_body_and_says_when_to_come_again(turn: Turn, path: str) -> None:
    reader = FakeReader()
    client = create_app(Settings(page="off"), reader).test_client()
    warmed_up = len(reader.read)
    turn.is_refused = True
    response = client.post(path, data=drawn_digit(), content_type="image/png")
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "1"
    error = response.json["error"]
    assert error if path.startswith("/v2") else error["code"] == "too_busy"
    turn.is_refused, turn.arrived = False, NOW() - 3600
    response = client.post(path, data=drawn_digit(), content_type="image/png")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert len(reader.read) == warmed_up
    assert client.get("/health").status_code == 200


def test_what_nobody_waits_for_is_not_read(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    reader = FakeReader()
    client = create_app(Settings(page="off"), reader).test_client()
    warmed_up = len(reader.read)
    near.close()
    wait_until(lambda: is_gone(far))
    response = client.post(
        "/predict",
        data=drawn_digit(),
        content_type="image/png",
        environ_overrides={"gunicorn.socket": far},
    )
    assert (response.status_code, response.json["error"]["code"]) == (499, "client_gone")
    assert len(reader.read) == warmed_up


def waiting(service: Service) -> float:
    return value(fetch(service), "inkdigits_requests_waiting")


def read(service: Service) -> float:
    return value(fetch(service), "inkdigits_decisions_total", decision="accept")


def errors(service: Service, code: str) -> float:
    return value(fetch(service), "inkdigits_errors_total", code=code)


@contextlib.contextmanager
def asking(service: Service, times: int) -> Iterator[list[Future[tuple[int, Any]]]]:
    with ThreadPoolExecutor(times) as pool:
        yield [pool.submit(service.predict) for _ in range(times)]


def test_full_queue_refuses_and_lets_in_again_when_there_is_room() -> None:
    limits = {"INKDIGITS_THREADS": "1", "INKDIGITS_QUEUE": "2"}
    with running("--delay", "4", **limits) as service:
        with asking(service, 8) as asked:
            # Answered although no thread is free: whoever watches must not go blind.
            wait_until(lambda: waiting(service) == 2)
            assert service.ask(path="/health")[0] == 200
        answers = [future.result() for future in asked]
        statuses = [status for status, _ in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 2
        assert {
            answer["error"]["code"] for status, answer in answers if status == 429
        } == {"too_busy"}  # fmt: skip
        assert errors(service, "too_busy") == statuses.count(429)
        assert service.predict()[0] == 200
        wait_until(lambda: waiting(service) == 0)


def test_whoever_watches_does_not_wait_behind_the_others() -> None:
    with running("--delay", "4", INKDIGITS_THREADS="1", INKDIGITS_QUEUE="16") as service:
        with asking(service, 3) as asked:
            wait_until(lambda: waiting(service) == 2)
            for path in ("/health", "/health/live", "/v2/health/ready"):
                assert service.ask(path=path)[0] == 200
            assert value(fetch(service), "inkdigits_requests_in_flight") >= 2
            # Nor do their connections, closed by now, take places in the queue.
            time.sleep(1.5)
            assert waiting(service) <= 2
        assert [future.result()[0] for future in asked] == [200, 200, 200]


def test_request_whose_time_is_up_in_the_queue_is_answered_and_not_read() -> None:
    limits = {"INKDIGITS_THREADS": "1", "INKDIGITS_DEADLINE": "1"}
    with running("--delay", "3", **limits) as service:
        with asking(service, 3) as asked:
            pass
        answers = sorted((future.result() for future in asked), key=lambda answer: answer[0])
        assert [status for status, _ in answers] == [200, 503, 503]
        assert answers[-1][1]["error"]["code"] == "deadline_exceeded"
        assert read(service) == 1


def test_request_whose_client_goes_away_in_the_queue_is_not_read() -> None:
    with (
        running("--delay", "2", INKDIGITS_THREADS="1") as service,
        contextlib.ExitStack() as stack,
    ):
        idle = connected(service, stack)
        patient = connected(service, stack, PREDICT)
        with socket.create_connection(("127.0.0.1", service.port)) as impatient:
            impatient.sendall(PREDICT)
        # One that has asked for nothing is no request that was dropped.
        idle.close()
        assert answer_on(patient)[0] == b"HTTP/1.1 200 OK"
        wait_until(lambda: errors(service, "client_gone") >= 1)
        # By now whatever else would be counted is.
        assert service.predict()[0] == 200
        assert errors(service, "client_gone") == 1
        assert read(service) == 2


def trickle(service: Service, head: bytes) -> bytes:
    """Send a head and then a byte now and then, and give back whatever is answered."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=0.1) as slow:
        slow.sendall(head)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                slow.sendall(b"a")
                return slow.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                return b""
    pytest.fail("it was never cut off")


def test_client_that_sends_a_byte_now_and_then_is_cut_off_at_the_deadline() -> None:
    limits = {"INKDIGITS_THREADS": "1", "INKDIGITS_DEADLINE": "2"}
    with running(**limits) as service:
        head, _, _ = PREDICT.partition(b"\r\n\r\n")
        answer = trickle(service, head + b"\r\n\r\n")
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert trickle(service, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ") == b""
        assert service.predict()[0] == 200


def connected(service: Service, stack: contextlib.ExitStack, sent: bytes = b"") -> socket.socket:
    client = stack.enter_context(
        socket.create_connection(("127.0.0.1", service.port), timeout=PATIENCE)
    )
    client.sendall(sent)
    return client


def test_silent_connections_take_no_threads() -> None:
    # Stock Gunicorn gives each a thread for 5 seconds: longer in all than anybody waits here.
    with running(INKDIGITS_THREADS="1") as service, contextlib.ExitStack() as stack:
        for _ in range(30):
            connected(service, stack)
        assert service.predict()[0] == 200


def test_clients_that_do_not_close_their_side_hold_nobody_up() -> None:
    # Stock Gunicorn waits up to 2 seconds for each, and accepts nobody meanwhile.
    closing = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with running() as service, contextlib.ExitStack() as stack:
        for _ in range(40):
            assert connected(service, stack, closing).recv(4096).startswith(b"HTTP/1.1 200 ")
        assert service.predict()[0] == 200


def test_idle_connections_make_room_for_new_ones() -> None:
    with running("--connections", "8") as service, contextlib.ExitStack() as stack:
        idle = [connected(service, stack) for _ in range(20)]
        assert service.predict()[0] == 200
        assert idle[0].recv(1) == b""


def test_refused_upload_gets_its_answer_before_the_connection_is_closed() -> None:
    with running(INKDIGITS_MAX_BYTES="1024") as service:
        status, answer = service.send(b"\0" * 4_000_000)
        assert (status, answer["error"]["code"]) == (413, "body_too_large")


def worker_of(service: Service) -> int:
    return int(service.ask()[1]["model_version"].removeprefix("fake-"))


def answer_on(client: socket.socket) -> tuple[bytes, Any]:
    received = b""
    while b'"total_time_ms"' not in received:
        part = client.recv(4096)
        assert part, received
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return head.splitlines()[0], json.loads(body)


def test_stopping_service_answers_what_the_kernel_had_accepted_for_it() -> None:
    with running() as service, contextlib.ExitStack() as stack:
        worker = worker_of(service)
        os.kill(worker, signal.SIGSTOP)
        clients = [connected(service, stack, PREDICT) for _ in range(5)]
        service.process.terminate()
        time.sleep(0.2)
        os.kill(worker, signal.SIGCONT)
        for client in clients:
            line, answer = answer_on(client)
            assert (line, answer["prediction"]) == (b"HTTP/1.1 200 OK", 7)
        assert service.process.wait(PATIENCE) == 0


def test_stopping_service_answers_what_waits_for_a_thread() -> None:
    with (
        running("--delay", "1", INKDIGITS_THREADS="1") as service,
        contextlib.ExitStack() as stack,
    ):
        clients = [connected(service, stack, PREDICT) for _ in range(4)]
        # One is being read by now, most likely; all are to be answered in any case.
        time.sleep(0.5)
        service.process.terminate()
        assert {answer_on(client)[0] for client in clients} == {b"HTTP/1.1 200 OK"}
        assert service.process.wait(PATIENCE) == 0


def test_killed_workers_successor_answers_what_the_kernel_had_accepted() -> None:
    with running() as service, contextlib.ExitStack() as stack:
        worker = worker_of(service)
        os.kill(worker, signal.SIGSTOP)
        clients = [connected(service, stack, PREDICT) for _ in range(5)]
        os.kill(worker, signal.SIGKILL)
        for client in clients:
            line, answer = answer_on(client)
            assert line == b"HTTP/1.1 200 OK"
            assert answer["model_version"] != f"fake-{worker}"


def test_many_clients_at_once_are_all_answered() -> None:
    settings = {"INKDIGITS_WORKERS": "2", "INKDIGITS_THREADS": "2"}
    with running(**settings) as service:
        statuses: list[int] = []

        def ask() -> None:
            with contextlib.closing(service.connect()) as connection:
                for _ in range(10):
                    headers = {"Content-Type": "image/png"}
                    connection.request("POST", "/predict", drawn_digit(), headers)
                    response = connection.getresponse()
                    response.read()
                    statuses.append(response.status)

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 160


def test_connection_that_is_kept_after_a_refusal_takes_the_next_request() -> None:
    headers = {"Content-Type": "image/png"}
    with running() as service, contextlib.closing(service.connect()) as connection:
        for size in (100, 40_000, 4_000_000):
            # Refused by its query, with the body unread.
            connection.request("POST", "/predict?risk=2", b"\0" * size, headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 422
            assert response.will_close == (size > 32768)
            connection.request("POST", "/predict", drawn_digit(), headers)
            response = connection.getresponse()
            response.read()
            assert response.status == 200
        pieces = iter([b"\0" * 75_000] * 2)
        connection.request("POST", "/predict?risk=2", pieces, headers)
        assert connection.getresponse().will_close
