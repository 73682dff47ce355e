"""Gunicorn's threaded worker, with bounds on what waits and on whoever is slow.

- Of the requests that wait for a thread there are at most ``queue``. A request above that is
  answered by threads that do nothing else, so that its refusal doesn't wait either. They answer
  whoever watches over the service too (``/metrics``, ``/health``) while no other thread is free.
- A connection takes a thread when its first bytes are there, not when it is made; one that its
  client closes between requests takes neither a thread nor a place in the queue.
- A request that is still arriving after ``deadline`` seconds isn't read any further.
- When there are as many connections as may be, the one that has been idle for longest is closed.
- An answered connection is closed without the main loop waiting for its client's side.
- Where a request is refused without being read to its end, the answer says that the connection
  closes: Gunicorn closes it too, but having promised to keep it.
- A worker that stops takes the connections that the kernel has accepted for it along.
- A short request that needn't wait for anything is answered by the main loop (``at_once``).

It rests on what Gunicorn 27 does inside; ``pyproject.toml`` pins that. Stock Gunicorn lets every
connection wait, gives a silent one a thread for 5 seconds, and waits for a closing client in its
main loop for up to 2.
"""

from __future__ import annotations

import errno
import re
import socket
import time
from concurrent import futures
from functools import partial
from selectors import EVENT_READ
from typing import Any, Final

from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.workers.gthread import TConn, ThreadWorker

from inkdigits.serving.api.load_shedding import SPARED_PATHS, is_gone, peek
from inkdigits.serving.inline_requests import Pace, is_whole
from inkdigits.serving.one_piece_response import answer
from inkdigits.serving.turn import Turn, set_turn

REFUSING_THREADS: Final = 2
# Requests that wait to be refused; more get no answer at all.
_MAX_REFUSING: Final = 512
# Seconds that a request which is refused may take to arrive.
_REFUSED_READ_S: Final = 2.0
# Seconds and bytes after the answer, for the client to take it and close its side.
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 16 * 2**20
# Seconds as long as which a stopping worker keeps a connection that has said nothing yet.
_STOP_PENDING_S: Final = 2.0
# A client that has waited for longer than this may have gone meanwhile.
_LOOK_AFTER_S: Final = 0.05
# Gunicorn reads up to 64 KiB of what is left of a body before the next request.
_DRAINED_BYTES: Final = 2**15
_SWEEP_S: Final = 1.0
# The first line of a request for what is answered however busy it is.
_WATCHING: Final = re.compile(
    b"(?:GET|HEAD) (?:%s) HTTP/1" % b"|".join(re.escape(path.encode()) for path in SPARED_PATHS)
)
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NOBODY: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR})


class _Connection(TConn):  # type: ignore[misc]
    """A connection whose graceful end nobody waits for."""

    def __init__(self, worker: BoundedWorker, *where: Any) -> None:
        super().__init__(worker.cfg, *where)
        self.worker = worker
        self.turn = Turn(0.0)

    def close(self, graceful: bool = False) -> None:
        if graceful:
            self.worker.linger(self.sock)
        else:
            super().close()


def _closing_if_unread(application: Any) -> Any:
    def call(environ: Any, start_response: Any) -> Any:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            if _is_unread(environ["wsgi.input"].reader):
                # Of Gunicorn's response, whose method this is; it drops the header itself.
                start_response.__self__.force_close()
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return call


def _is_unread(reader: Any) -> bool:
    """Whether more of a body is left than Gunicorn reads for the sake of the connection."""
    if isinstance(reader, LengthReader):
        return bool(reader.length > _DRAINED_BYTES)
    return isinstance(reader, ChunkedReader) and reader.parser is not None


class _Done:
    """Stands for the future of what was done at once."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def cancelled(self) -> bool:
        return False

    def result(self) -> Any:
        return self._result


class BoundedWorker(ThreadWorker):  # type: ignore[misc]
    """One worker process; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns: dict[_Connection, Turn] = {}
        self._engaged = 0
        self._refusing = 0
        # Socket → when its time is up, and bytes read from it since; the oldest comes first.
        self._lingering: dict[socket.socket, tuple[float, int]] = {}
        self._next_sweep = 0.0
        self._pace = Pace()
        # When the main loop last looked; what it has answered itself since, and before that.
        self._polled = 0.0
        self._answered = 0
        self._answered_before = 0

    def load_wsgi(self) -> None:
        """Load the application, and with it what bounds this worker."""
        super().load_wsgi()
        self._metrics = self.app.metrics
        self._deadline = float(self.app.settings.deadline)
        self._most = self.cfg.threads + self.app.settings.queue
        self.wsgi = _closing_if_unread(self.app.wsgi())
        self._refusers = futures.ThreadPoolExecutor(REFUSING_THREADS, "refuser")
        settings = self.app.settings
        self._may_hurry = not (self.cfg.is_ssl or settings.keeps_log or settings.model_url)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """As Gunicorn's; what is ready came, as far as one can tell, when it was looked for."""
        try:
            events = self.poller.select(timeout)
            self._polled = time.perf_counter()
            self._answered_before, self._answered = self._answered, 0
            for key, _ in events:
                key.data(key.fileobj)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise

    # Connections

    def accept(self, listener: Any) -> None:
        """Take connections up; one gets a thread when there is something to read.

        As many as were answered since the loop last came by: one alone would make the last of 30
        that come at once wait for the answers of 1 + 2 + … + 29. No more, or they would all be of
        the worker that was idle first.
        """
        for _ in range(max(1, self._answered, self._answered_before)):
            if self.nr_conns >= self.worker_connections or not self._accept(listener):
                break

    def _accept(self, listener: Any) -> bool:
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in _NOBODY:
                return False
            if error.errno not in _NO_ROOM:
                raise
            if not self._evict():
                # The listener stays readable; without a pause the loop would spin.
                time.sleep(0.05)
                return False
            return True
        self.nr_conns += 1
        connection = _Connection(self, sock, address, listener.getsockname())
        first = peek(sock, 1)
        if first is None:
            connection.timeout = time.monotonic() + self.cfg.keepalive
            self.pending_conns.append(connection)
            readable = partial(self.on_pending_socket_readable, connection)
            self.poller.register(sock, EVENT_READ, readable)
        elif first:
            connection.data_ready = True
            self.enqueue_req(connection)
        else:
            self.nr_conns -= 1
            connection.close()
        return True

    def on_client_socket_readable(self, conn: Any, client: Any) -> None:
        """As Gunicorn's, but a closed connection isn't handed on as if it were a request."""
        if peek(client, 1) == b"":
            self._forget(conn, self.keepalived_conns)
        else:
            super().on_client_socket_readable(conn, client)

    def on_pending_socket_readable(self, conn: Any, client: Any) -> None:
        """As Gunicorn's, but a closed connection isn't handed on as if it were a request."""
        if peek(client, 1) == b"":
            self._forget(conn, self.pending_conns)
        else:
            super().on_pending_socket_readable(conn, client)

    def _forget(self, connection: Any, idle: Any) -> None:
        self.poller.unregister(connection.sock)
        idle.remove(connection)
        self.nr_conns -= 1
        connection.close()

    def set_accept_enabled(self, enabled: bool) -> None:
        """As Gunicorn's, but whoever has been let in by the kernel before a stop is served."""
        is_last = not (enabled or self.alive)
        if is_last:
            for listener in self.sockets:
                listener.setblocking(False)
                while self._accept(listener):
                    pass
        super().set_accept_enabled(enabled)
        if is_last:
            # Whoever comes from now on is turned away at once instead of waiting in vain.
            for listener in self.sockets:
                listener.close()

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)
        for connection in self.pending_conns:
            connection.timeout = min(connection.timeout, time.monotonic() + _STOP_PENDING_S)

    def _evict(self) -> bool:
        """Close the connection that has been idle for longest; whether there was one."""
        for idle in (self.pending_conns, self.keepalived_conns):
            if idle:
                self._forget(idle[0], idle)
                return True
        return False

    # Requests

    def enqueue_req(self, conn: Any) -> None:
        """Give a request to a thread, or to those that refuse."""
        # What was answered at once waited as long as this one did.
        is_refused = self._engaged + self._answered >= self._most
        if self._engaged >= self.cfg.threads and not (is_refused or self.cfg.is_ssl):
            # It isn't refused, having one of those paths, and mustn't wait behind the others.
            is_refused = bool(_WATCHING.match(peek(conn.sock, 64) or b""))
        turn = conn.turn = Turn(self._polled, is_refused)
        if not is_refused:
            self._engaged += 1
            turn.is_short = self._may_hurry and is_whole(conn.sock)
            if turn.is_short and self._pace.is_quick:
                self._answered += 1
                self._turns[conn] = turn
                self.finish_request(conn, _Done(self.handle(conn)))
                return
            future = self.tpool.submit(self.handle, conn)
        elif self._refusing < _MAX_REFUSING:
            self._refusing += 1
            future = self._refusers.submit(self.handle, conn)
        else:
            self.nr_conns -= 1
            conn.close()
            return
        self._turns[conn] = turn
        future.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def handle(self, conn: Any) -> Any:
        """Serve a request; in a thread of its own."""
        turn: Turn = conn.turn
        turn.started = time.perf_counter()
        if turn.waited > _LOOK_AFTER_S and is_gone(conn.sock):
            # Else an idle connection was closed, and no request lost. Through TLS a closing says
            # goodbye, which counts as something.
            if peek(conn.sock, 1):
                self._metrics.count_error("client_gone")
            return False
        set_turn(turn)
        try:
            return super().handle(conn)
        finally:
            set_turn(None)

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request that has been parsed; in its thread."""
        return answer(self, req, conn)

    def finish_request(self, conn: Any, fs: Any) -> None:
        """Go on with a connection after its request; in the main loop."""
        turn = self._turns.pop(conn)
        if turn.is_short and turn.started is not None:
            # Threads take their turns at the interpreter, so each seems slow for all of them.
            at_work = max(1, min(self._engaged, self.cfg.threads))
            self._pace.saw((time.perf_counter() - turn.started) / at_work)
        if turn.is_refused:
            self._refusing -= 1
        else:
            self._engaged -= 1
        super().finish_request(conn, fs)

    # What is done now and then

    def murder_pending(self) -> None:
        """As Gunicorn's, and once a second whatever else has to end."""
        super().murder_pending()
        while self.nr_conns >= self.worker_connections and self._evict():
            pass
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_S
            # Once a second: whoever asks for the figures does so less often.
            waiting = sum(t.started is None and not t.is_refused for t in self._turns.values())
            self._metrics.show_waiting(waiting)
            self._cut_slow()
            for sock in [one for one, (end, _) in self._lingering.items() if end <= now]:
                self._end_linger(sock)

    def _cut_slow(self) -> None:
        now = time.perf_counter()
        for connection, turn in self._turns.items():
            limit = _REFUSED_READ_S if turn.is_refused else self._deadline
            if turn.started is not None and turn.is_reading and now - turn.arrived > limit:
                turn.is_reading = False
                try:
                    # Whoever reads gets an end of file. Not the method of a TLS socket, which
                    # would take the encryption from under the thread that reads.
                    socket.socket.shutdown(connection.sock, socket.SHUT_RD)
                except OSError:
                    continue  # it is closed already

    def linger(self, sock: socket.socket) -> None:
        """Close a connection once its client has taken the answer (RFC 9112 section 9.6)."""
        try:
            sock.setblocking(False)
            sock.shutdown(socket.SHUT_WR)
            self.poller.register(sock, EVENT_READ, self._drain)
        except (OSError, ValueError):
            sock.close()
            return
        # Until it is closed it is one of the connections that a stop waits for.
        self.nr_conns += 1
        self._lingering[sock] = (time.monotonic() + _LINGER_S, 0)

    def _drain(self, sock: socket.socket) -> None:
        try:
            received = len(sock.recv(65536))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        end, total = self._lingering[sock]
        self._lingering[sock] = (end, total + received)
        if not received or total + received > _LINGER_BYTES:
            self._end_linger(sock)

    def _end_linger(self, sock: socket.socket) -> None:
        del self._lingering[sock]
        self.poller.unregister(sock)
        sock.close()
        self.nr_conns -= 1
