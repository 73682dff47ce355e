"""The progress of a batch run, as one line of a terminal that is written over."""

from __future__ import annotations

import time
from typing import Final, TextIO

from inkdigits.batch.run import Progress

_SECONDS_BETWEEN: Final = 0.2
_BAR_WIDTH: Final = 24


class ProgressLine:
    """Writes the line, and leaves it empty at the end of its ``with`` block.

    It is ``on`` where the stream is a terminal and not ``quiet``, as for a program that reads it.
    """

    def __init__(self, stream: TextIO, quiet: bool) -> None:
        self._stream = stream
        self._next = 0.0
        self._width = 0
        self.on = stream.isatty() and not quiet

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()
            self._width = 0

    def show(self, progress: Progress) -> None:
        """Write the line, unless it was written less than 0.2 seconds ago."""
        now = time.monotonic()
        if self.on and now >= self._next:
            self._next = now + _SECONDS_BETWEEN
            self._write(as_line(progress))

    def _write(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)


def as_line(progress: Progress) -> str:
    """Return pictures, rate and time left, with a bar where the end is known.

    >>> as_line(Progress(pictures=2500, failed=3, expected=None, rate=10.0, seconds_left=None))
    '2,500 pictures  10/s  3 cannot be read'
    """
    parts = [f"{progress.pictures:,} pictures", f"{progress.rate:,.0f}/s"]
    if progress.expected:
        share = progress.pictures / progress.expected
        full = int(share * _BAR_WIDTH)
        bar = "#" * full + "-" * (_BAR_WIDTH - full)
        # Rounded down: 100 % means that all is done.
        parts[0] = f"[{bar}] {int(share * 100):3} %  {progress.pictures:,} of {progress.expected:,}"
    if progress.seconds_left is not None:
        parts.append(f"{_duration(progress.seconds_left)} left")
    if progress.failed:
        parts.append(f"{progress.failed:,} cannot be read")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def printable(text: str) -> str:
    r"""Return text with control characters escaped: a file's name may hold some.

    >>> print(printable("a\x1b[2J.png"))
    a\x1b[2J.png
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
