"""Which requests a worker's main loop answers itself, instead of giving them to a thread.

Handing a request to a thread and its connection back to the main loop costs about as much as
reading a digit's PNG (docs/experiments/). It is needed where an answer may have to wait, for a
client that is slow or for a database; not where all of the request is here already, there is
nothing to wait for, and the answers have been quick of late.
"""

from __future__ import annotations

import fcntl
import re
import socket
import sys
import termios
from typing import Final

from inkdigits.serving.api.load_shedding import peek

QUICK_S: Final = 0.025
"""Seconds that a quick answer takes at most; one that takes longer keeps the main loop waiting."""

QUICK_ANSWERS: Final = 16
"""As many quick answers in a row, by threads at first, and the main loop answers itself."""

MOST_BYTES: Final = 65536
"""Of a request that the main loop answers."""

# Of the API's main request only, without a query: what else is asked for may take longer.
_START = b"POST /predict HTTP/1.1\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})[ \t]*\r\n", re.IGNORECASE)
# Several pictures take longer, and an explanation is too long an answer to be sent at once.
_SLOW = re.compile(rb'"(?:images|explain)"')


class Pace:
    """Whether answers have been quick of late. For the main loop alone."""

    def __init__(self) -> None:
        self._quick = 0

    @property
    def is_quick(self) -> bool:
        """Whether the next answer will be quick, as far as one can tell."""
        return self._quick >= QUICK_ANSWERS

    def saw(self, seconds: float) -> None:
        """Take note of an answer that took so long."""
        self._quick = self._quick + 1 if seconds <= QUICK_S else 0


def is_whole(connection: socket.socket) -> bool:
    """Whether a short request is here to its last byte, and its answer can be sent.

    Nothing is taken from the connection. Only on Linux can it be seen that the client has taken
    all earlier answers, so that nothing else will have to be waited for; elsewhere no request is.

    Args:
        connection: to a client; plain TCP.
    """
    if sys.platform != "linux":
        return False
    here = peek(connection, MOST_BYTES)
    if here is None or not here.startswith(_START):
        return False
    end = here.find(b"\r\n\r\n")
    length = _LENGTH.search(here, 0, end + 2)
    if length is None or len(here) != end + 4 + int(length[1]) or _SLOW.search(here):
        return False
    # Bytes that were sent and that the client's side hasn't acknowledged (man 7 tcp).
    unsent = fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4))
    return unsent == bytes(4)
