"""What several commands share: types of options, options, what they print, and their progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])

FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
COUNT: Final = click.IntRange(min=1)
PROCESSES: Final = click.IntRange(1, 512)
SHARE: Final = click.FloatRange(0, 1, min_open=True, max_open=True)
DEVICES: Final = click.Choice(["auto", "cpu", "cuda", "mps"])


def option(
    names: str, text: str, kind: Any = None, default: Any = ..., **more: Any
) -> Callable[[C], C]:
    """Return an option by its names, its help and its type."""
    if default is not ...:
        more["default"] = default
    if isinstance(kind, click.IntRange | click.FloatRange):
        more.setdefault("metavar", "N" if isinstance(kind, click.IntRange) else "SHARE")
    return click.option(*names.split(), help=text, type=kind, **more)


def device(
    purpose: str, default: str | None = None, otherwise: str = "ONNX Runtime on the CPU"
) -> Callable[[C], C]:
    """Return the option --device; without a default, ``otherwise`` says what applies."""
    own = "" if default else f"  [default: {otherwise}]"
    text = f"{purpose}; auto selects the first available of cuda, mps and cpu.{own}"
    return option("--device", text, DEVICES, default=default)


def risk(
    what: str = "readings", default: float | None = None, otherwise: str = "the model's"
) -> Callable[[C], C]:
    """Return the option --risk; without a default, ``otherwise`` says what applies."""
    own = "" if default else f"  [default: {otherwise}]"
    text = f"Tolerated share of wrong {what} among the accepted {what}.{own}"
    return option("--risk", text, SHARE, default=default)


PICTURES = click.argument("names", nargs=-1, required=True, metavar="SOURCE…")
MODEL = option(
    "--model model_path",
    "Model to use: an artifact, a folder that contains one (such as models/current), or "
    "MNISTClassifier (the plain network).  [default: the shipped model; env: MODEL_PATH]",
    click.Path(path_type=Path),
    envvar="MODEL_PATH",
)
JSON = option("--json as_json", "Print the result as JSON.", is_flag=True)
DATA = option(
    "--data data_root",
    "Folder that contains MNIST in the subfolder MNIST/raw.",
    FOLDER,
    default="data",
)
SOURCES = option(
    "--data sources",
    "Labelled pictures; can be repeated. A folder or archive needs subfolders named after the "
    "labels (0 to 9, none). A table (.csv, .jsonl, .parquet) needs the columns path and label. "
    "Exports of the history, database URLs and MNIST's IDX files are also supported.",
    multiple=True,
    metavar="SOURCE",
)
PATTERN = option(
    "--pattern",
    "Regular expression that finds the label in file names. The group (?P<label>…) is required. "
    "The group (?P<writer>…) is optional.",
)
DOWNLOAD = option(
    "--download/--no-download",
    "Download MNIST (about 12 MB) if it is missing.",
    default=True,
)
FIGURES = option("--figures", "Folder for reports and figures.", FOLDER, default="outputs/figures")
SEED = option("--seed", "Seed of the random numbers.", click.IntRange(0), default=0)
RISK = risk(default=0.001)


@contextmanager
def resumable(how: str) -> Iterator[None]:
    """End with exit code 130 after Ctrl-C, and say how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {how}")
        sys.exit(130)


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


def say(line: str) -> None:
    """Print to standard error, so that standard output holds only the result."""
    click.echo(line, err=True)


def answer(content: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print the result of a command, as JSON or as text."""
    click.echo(json.dumps(content) if as_json else text)


def counted(n: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "picture"), counted(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def printable(text: str) -> str:
    """Return text with control characters escaped: a file's name may hold some."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
