"""One request and its answer under Gunicorn, without what this service has no use for."""

from __future__ import annotations

import logging
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi

logger = logging.getLogger(__name__)


class OnePieceResponse(wsgi.Response):  # type: ignore[misc]
    """Sends the head together with the body, where that is one piece, as it nearly always is."""

    headers_sent: bool

    def write(self, arg: bytes) -> None:
        """Send a piece of the body."""
        is_simple = not (self.headers_sent or self.chunked or self._omits_body)
        if not is_simple or not isinstance(arg, bytes) or len(arg) != self.response_length:
            super().write(arg)
            return
        lines = self.default_headers()
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        util.write(self.sock, util.to_bytestring("".join(lines) + "\r\n", "latin-1") + arg)
        self.headers_sent = True
        self.sent = len(arg)


def answer(worker: Any, request: Any, connection: Any) -> bool:
    """Answer a request, as ``ThreadWorker.handle_request`` does.

    Left out are Gunicorn's hooks, its access log and its limit on the requests of a worker, which
    are not used here.

    Args:
        worker: whose application answers.
        request: as Gunicorn has parsed it.
        connection: where it came from.

    Returns:
        Whether the connection may be kept.

    Raises:
        OSError: the answer can't be sent.
        StopIteration: it was sent in part, and the connection is closed.
    """
    response, environ = wsgi.create(
        request,
        connection.sock,
        connection.client,
        connection.server,
        worker.cfg,
        response_class=OnePieceResponse,
    )
    environ["wsgi.multithread"] = True
    if not worker.alive or len(worker.keepalived_conns) >= worker.max_keepalived:
        response.force_close()
    is_broken_off = True
    try:
        body = worker.wsgi(environ, response.start_response)
        try:
            if isinstance(body, environ["wsgi.file_wrapper"]):
                response.write_file(body)
            else:
                for piece in body:
                    response.write(piece)
            response.close()
        finally:
            if hasattr(body, "close"):
                body.close()
        is_broken_off = False
    except OSError:
        is_broken_off = False
        raise
    finally:
        if is_broken_off and response.headers_sent:
            # Another answer can't follow a part of one.
            logger.error("an answer broke off", exc_info=True)
            util.close_graceful(connection.sock)
            raise StopIteration
    return not response.should_close()
