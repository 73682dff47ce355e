"""What the commands of the training side share: options, and how a missing package is told."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from inkdigits.errors import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")

TRAINING_PACKAGES = frozenset(
    {"matplotlib", "onnx", "onnxscript", "sklearn", "tensorboard", "torch", "torchvision", "tqdm"}
)

DATA_OPTION = click.option(
    "--data",
    "data_root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    help="Folder that holds MNIST/raw, or is to hold it.",
)
DOWNLOAD_OPTION = click.option(
    "--download/--no-download",
    default=True,
    show_default=True,
    help="Fetch MNIST (about 12 MB) if it isn't in the data folder.",
)
RUN_OPTION = click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("saved_models"),
    show_default=True,
    help="Folder of the training run.",
)
FIGURES_OPTION = click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("outputs/figures"),
    show_default=True,
    help="Folder for the figures, as PNG files.",
)
SEED_OPTION = click.option("--seed", type=int, default=0, show_default=True)
TRAINING_DEVICE_OPTION = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="auto is the first present of cuda, mps, cpu.",
)
RESUME_OPTION = click.option(
    "--resume", is_flag=True, help="Go on with the interrupted run in the folder."
)
RISK_OPTION = click.option(
    "--risk",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.001,
    show_default=True,
    help="Tolerated share of wrong readings among the accepted.",
)


def trains(command: Callable[P, R]) -> Callable[P, R]:
    """Say which extra is missing where the training side isn't installed."""

    @wraps(command)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in TRAINING_PACKAGES:
                raise
            raise BackendUnavailableError(
                f"this command needs {error.name}, which the training side brings: "
                "pip install 'inkdigits[train]'"
            ) from error

    return checked
