"""How far a bulk run is, as one line on a terminal that is written over."""

from __future__ import annotations

import time
from typing import TextIO

from inkdigits.batch.run import Progress

SECONDS_BETWEEN = 0.2
BAR_WIDTH = 24


class ProgressLine:
    """Writes the line; nothing if the stream is no terminal, or ``quiet``.

    Args:
        stream: standard error, so that standard output holds only the result.
        quiet: when a program reads what is printed.
    """

    def __init__(self, stream: TextIO, *, quiet: bool) -> None:
        self._stream = stream
        self._next = 0.0
        self._width = 0
        self.on = stream.isatty() and not quiet

    def show(self, progress: Progress) -> None:
        """Write it, unless it was just written."""
        now = time.monotonic()
        if self.on and now >= self._next:
            self._next = now + SECONDS_BETWEEN
            self._write(as_line(progress))

    def end(self) -> None:
        """Leave the terminal's line empty."""
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()
            self._width = 0

    def _write(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)


def as_line(progress: Progress) -> str:
    """Pictures, rate and time left, with a bar where the end is known."""
    parts = [f"{progress.pictures:,} pictures", f"{progress.rate:,.0f}/s"]
    if progress.expected:
        share = progress.pictures / progress.expected
        full = int(share * BAR_WIDTH)
        bar = "#" * full + "-" * (BAR_WIDTH - full)
        # Rounded down: 100 % is when all is done.
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
    """Text that a terminal shows and doesn't obey: a file's name may hold control characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
