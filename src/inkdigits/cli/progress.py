"""The progress of a command, as a bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Yield what shows how many are done, of how many if that is known, and a detail.

    It shows nothing where standard error is no terminal.
    """
    stream = sys.stderr
    if quiet or not stream.isatty():
        yield lambda *_: None
        return
    with click.progressbar(length=1, file=stream, show_pos=True, item_show_func=lambda x: x) as bar:

        def show(done: int, of: int | None, detail: str | None = None) -> None:
            # Without a known end, one more is to come.
            bar.length = of or done + 1
            bar.update(done - bar.pos, detail)

        yield show
