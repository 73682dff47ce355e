"""What several commands share: types of options, options, and what a command prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click

from inkdigits.errors import BackendUnavailableError

P = ParamSpec("P")
R = TypeVar("R")

FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
COUNT: Final = click.IntRange(min=1)
PROCESSES: Final = click.IntRange(1, 512)
DEVICES: Final = click.Choice(["auto", "cpu", "cuda", "mps"])
SHARE: Final = click.FloatRange(0, 1, min_open=True, max_open=True)

PICTURES = click.argument("names", nargs=-1, required=True, metavar="SOURCE…")
MODEL = click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    envvar="MODEL_PATH",
    help="Artifact to read with, a folder with one, such as models/current, or MNISTClassifier, "
    "the plain network.  [default: the one that comes with Inkdigits; env: MODEL_PATH]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
DATA = click.option(
    "--data",
    "data_root",
    type=FOLDER,
    default="data",
    help="Folder of the data; MNIST is in MNIST/raw below it.",
)
SOURCES = click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="Labelled pictures; can be repeated. A folder or an archive whose folders are labels (0 "
    "to 9, none), a table (.csv, .jsonl, .parquet) with path and label, an export of the history, "
    "the database's URL, or MNIST's IDX files.",
)
PATTERN = click.option(
    "--pattern",
    help="Where names hold the label: a regular expression with the group (?P<label>…), and maybe "
    "(?P<writer>…).",
)
DOWNLOAD = click.option(
    "--download/--no-download",
    default=True,
    help="Download MNIST (about 12 MB) if it is not in the data folder.",
)
FIGURES = click.option(
    "--figures",
    type=FOLDER,
    default="outputs/figures",
    help="Folder for the figures, as PNG files.",
)
SEED = click.option("--seed", type=int, default=0, help="Seed of everything random.")


def device(
    purpose: str, default: str | None = None, otherwise: str = "ONNX Runtime on the CPU"
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the option --device; without a default, ``otherwise`` says what applies."""
    own = "" if default else f"  [default: {otherwise}]"
    text = f"{purpose}; auto is the first present of cuda, mps, cpu.{own}"
    return click.option("--device", type=DEVICES, default=default, help=text)


def risk(
    what: str = "readings", default: float | None = None, otherwise: str = "the model's"
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return the option --risk; without a default, ``otherwise`` says what applies."""
    own = "" if default else f"  [default: {otherwise}]"
    text = f"Tolerated share of wrong {what} among the accepted.{own}"
    return click.option("--risk", type=SHARE, default=default, help=text)


RISK = risk(default=0.001)

_TRAINING_PACKAGES: Final = frozenset(
    {"matplotlib", "onnx", "onnxscript", "sklearn", "tensorboard", "torch", "torchvision", "tqdm"}
)


def needs_training_extra(command: Callable[P, R]) -> Callable[P, R]:
    """Have a command name the missing extra where the training packages are not installed."""

    @wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in _TRAINING_PACKAGES:
                raise
            needs = f"this command needs {error.name}"
            raise BackendUnavailableError.without("train", needs) from error

    return checked


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """End with exit code 130 after Ctrl-C, and say how to resume."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; run the same command with --resume to continue from {folder}")
        sys.exit(130)


def say(line: str) -> None:
    """Print to standard error, so that standard output holds only the result."""
    click.echo(line, err=True)


def answer(content: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print the result of a command, as JSON or as text."""
    click.echo(json.dumps(content) if as_json else text)


def printable(text: str) -> str:
    """Return text with control characters escaped: a file's name may hold some."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
