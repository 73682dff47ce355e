"""Identifiers of predictions and requests: UUID version 7, RFC 9562 section 5.7."""

from __future__ import annotations

import secrets
import time


def new_id() -> str:
    """Make an identifier that sorts by the time it was made, and is random otherwise.

    The first 48 bits are Unix milliseconds, the next 12 (``rand_a``) the fraction of the
    millisecond (RFC 9562 section 6.2, method 3), and 62 bits are random.

    >>> len(new_id()), new_id() < new_id()
    (36, True)

    Returns:
        A UUIDv7 in its canonical form of 36 characters.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
