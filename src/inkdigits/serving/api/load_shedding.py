"""When there is more to do than can be done: who waits, who is refused, whose time is up.

It knows neither HTTP nor a server. The server's worker (``worker``) says when a request came and
whether there was room for it; the application asks here before it does anything, and again before
it lets a picture be read.

OverloadedError             more requests wait than may
DeadlineExceededError            the request has waited for too long
ClientDisconnectedError          nobody waits for the answer any more
"""

from __future__ import annotations

import select
import socket
import time
from typing import Final

from inkdigits.errors import (
    ClientDisconnectedError,
    DeadlineExceededError,
    OverloadedError,
)
from inkdigits.serving.api.access import OPEN_PATHS
from inkdigits.serving.turn import current_turn

SPARED_PATHS: Final = OPEN_PATHS | {"/metrics"}
"""Answered however busy it is: who watches over the service must not go blind just then."""


def peek(connection: socket.socket, most: int) -> bytes | None:
    """What has arrived on a connection and hasn't been read, without taking it or waiting for it.

    Args:
        connection: plain TCP; of one of TLS what has arrived is encrypted.
        most: bytes to look at.

    Returns:
        None where nothing is there yet; nothing (``b""``) where the other end has closed its side
        or the connection is broken.
    """
    try:
        # The method of the plain socket, for one of TLS takes no flags.
        return socket.socket.recv(connection, most, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def is_gone(connection: socket.socket) -> bool:
    """Whether the other end has closed its side of a connection.

    One that closes only its sending half counts as gone too: TCP doesn't tell the two apart before
    something is sent. Without ``POLLRDHUP``, which only Linux has, what is still unread hides it.
    """
    poll = select.poll()
    if hasattr(select, "POLLRDHUP"):
        poll.register(connection, select.POLLRDHUP)
        return bool(poll.poll(0))
    return peek(connection, 1) == b""


class Pressure:
    """The rules for a request under pressure.

    Args:
        deadline: seconds from a request's arrival within which its reading must begin.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def admit(self, path: str) -> float:
        """Let a request in whose headers have been read.

        Args:
            path: of the request.

        Returns:
            Seconds that it waited for a thread.

        Raises:
            OverloadedError: there was no room for it.
            DeadlineExceededError: it waited for longer than the deadline.
        """
        turn = current_turn()
        if turn is None:
            return 0.0
        waited = turn.waited
        if path not in SPARED_PATHS:
            if turn.is_refused:
                raise OverloadedError("Too many requests are waiting; ask again in a second.")
            self._require_time(waited)
        return waited

    def proceed(self, began: float, connection: socket.socket | None) -> None:
        """Let a request go on to its reading: it is here as a whole.

        Args:
            began: when its headers had been read, where no worker says when it came.
            connection: to the client; None where there is none to look at.

        Raises:
            DeadlineExceededError: its time is up.
            ClientDisconnectedError: its client is gone.
        """
        turn = current_turn()
        if turn is not None:
            turn.is_reading = False
            began = turn.arrived
        self._require_time(time.perf_counter() - began)
        if connection is not None and is_gone(connection):
            raise ClientDisconnectedError("The client has closed the connection.")

    def _require_time(self, seconds: float) -> None:
        if seconds > self._deadline:
            raise DeadlineExceededError(
                f"The request couldn't be taken up within {self._deadline:g} s of its arrival."
            )
