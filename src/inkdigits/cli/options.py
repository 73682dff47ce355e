"""What several commands share: types of options, options, and how a command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import click

from inkdigits.errors import BackendUnavailableError

P = ParamSpec("P")
R = TypeVar("R")

FILE: Final = click.Path(path_type=Path, dir_okay=False)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
COUNT: Final = click.IntRange(min=1)
SHARE: Final = click.FloatRange(0, 1, min_open=True, max_open=True)
DEVICES: Final = click.Choice(["auto", "cpu", "cuda", "mps"])

MODEL = click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path),
    envvar="MODEL_PATH",
    help="Artifact to read with, a folder with one, such as models/current, or MNISTClassifier, "
    "the plain network.  [default: the one that comes with Inkdigits; env: MODEL_PATH]",
)
READER_DEVICE = click.option(
    "--device",
    type=DEVICES,
    help="Read with PyTorch on this device.  [default: ONNX Runtime on the CPU]",
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
RISK = click.option(
    "--risk",
    type=SHARE,
    default=0.001,
    help="Tolerated share of wrong readings among the accepted.",
)

_TRAINING_PACKAGES: Final = frozenset(
    {"matplotlib", "onnx", "onnxscript", "sklearn", "tensorboard", "torch", "torchvision", "tqdm"}
)


def needs_training_extra(command: Callable[P, R]) -> Callable[P, R]:
    """Have a command name the missing extra where the training packages are not installed.

    >>> def plot():
    ...     raise ModuleNotFoundError(name="matplotlib")
    >>> needs_training_extra(plot)()
    Traceback (most recent call last):
    inkdigits.errors.BackendUnavailableError: this command needs matplotlib, which is not \
installed; pip install 'inkdigits[train]'
    """

    @wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in _TRAINING_PACKAGES:
                raise
            raise BackendUnavailableError(
                f"this command needs {error.name}, which is not installed; "
                "pip install 'inkdigits[train]'"
            ) from error

    return checked


@contextmanager
def resumable(folder: Path) -> Iterator[None]:
    """End with exit code 130 after Ctrl-C, and say how to resume.

    >>> with resumable(Path("saved_models")):
    ...     pass
    """
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; run the same command with --resume to continue from {folder}")
        sys.exit(130)


def say(line: str) -> None:
    """Print to standard error, so that standard output holds only the result.

    >>> say("training")
    """
    click.echo(line, err=True)
