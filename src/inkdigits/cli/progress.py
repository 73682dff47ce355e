"""The progress of a batch run, as a bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from inkdigits.batch.run import Progress


@contextmanager
def progress_bar(stream: TextIO, quiet: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Yield what shows the progress of a run; None if nobody looks: no terminal, or ``quiet``."""
    if quiet or not stream.isatty():
        yield None
        return
    with click.progressbar(length=1, file=stream, show_pos=True, item_show_func=_details) as bar:

        def show(progress: Progress) -> None:
            # Without a known end, one more is to come.
            bar.length = progress.expected or progress.pictures + 1
            bar.update(progress.pictures - bar.pos, progress)

        yield show


def _details(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    failed = f", {progress.failed:,} cannot be read" if progress.failed else ""
    return f"{progress.rate:,.0f} pictures/s{failed}"


def printable(text: str) -> str:
    """Return text with control characters escaped: a file's name may hold some."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
