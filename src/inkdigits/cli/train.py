"""The commands that make pictures to learn from, and that learn from them.

They import torch and its kin when they run, so that the other commands start without.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli.options import JSON_OPTION, say
from inkdigits.cli.training_options import (
    DATA_OPTION,
    DOWNLOAD_OPTION,
    FIGURES_OPTION,
    RESUME_OPTION,
    RISK_OPTION,
    SEED_OPTION,
    TRAINING_DEVICE_OPTION,
    trains,
)

if TYPE_CHECKING:
    from inkdigits.data.synthesis import SynthesisConfig


SYNTHETIC = 180_000


@click.command(short_help="Make pictures to train on beside MNIST.")
@DATA_OPTION
@DOWNLOAD_OPTION
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("saved_models/synthetic.npz"),
    show_default=True,
    help='File to write; "inkdigits train --pictures" takes it.',
)
@click.option(
    "--synthetic",
    type=click.IntRange(min=1),
    default=SYNTHETIC,
    show_default=True,
    help="Pictures to make, about: two thirds digits, a third without one.",
)
@SEED_OPTION
@trains
def synthesise(data_root: Path, target: Path, synthetic: int, seed: int, *, download: bool) -> None:
    """Make pictures to train on beside MNIST, from its digits and from the installed fonts.

    "inkdigits train" makes its own; runs that take the same file share them.
    """
    from inkdigits.data.mnist import load_splits
    from inkdigits.data.synthesis_cache import write_synthetic

    splits = load_splits(data_root, download=download)
    write_synthetic(splits.train, _composition(synthetic, seed), target, progress=True, report=say)
    say(f"wrote {target}")


def _composition(pictures: int, seed: int) -> SynthesisConfig:
    """Two thirds of them digits, a third without one."""
    from inkdigits.data.synthesis import SynthesisConfig

    return SynthesisConfig(digits=pictures - pictures // 3, others=pictures // 3, seed=seed)


@click.command(short_help="Train, calibrate, export and evaluate a model.")
@DATA_OPTION
@DOWNLOAD_OPTION
@click.option(
    "--out",
    "run_folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("saved_models"),
    show_default=True,
    help="Folder for the weights, the artifact and run.json.",
)
@FIGURES_OPTION
@click.option(
    "--logs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("outputs/logs"),
    show_default=True,
    help="Folder for TensorBoard's event files.",
)
@click.option(
    "--network",
    type=click.Choice(["DigitNet", "MNISTClassifier", "TeacherNet"]),
    default="DigitNet",
    show_default=True,
    help="What is trained; DigitNet is what is shipped, TeacherNet teaches it.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=40, show_default=True)
@click.option(
    "--batch-size",
    type=click.IntRange(min=8),
    default=256,
    show_default=True,
    help="Pictures a step, synthetic ones included.",
)
@click.option(
    "--synthetic",
    type=click.IntRange(min=0),
    default=SYNTHETIC,
    show_default=True,
    help="Pictures to make beside MNIST: two thirds digits on paper, corrupted, in low "
    "resolution or drawn, a third without a digit; together 44 % of each batch. 0 trains on clean "
    "digits only, and nothing can then be refused as no digit.",
)
@click.option(
    "--pictures",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help='Files of "inkdigits synthesise" to take instead of making any; may be repeated.',
)
@click.option(
    "--learning-rate",
    type=float,
    default=2e-3,
    show_default=True,
    help="Peak of the one-cycle schedule.",
)
@click.option(
    "--ema-decay",
    type=click.FloatRange(0, 0.999999),
    default=0.999,
    show_default=True,
    help="Decay a step of the moving average of the weights; 0 keeps none.",
)
@click.option(
    "--augmentation",
    "strength",
    type=click.FloatRange(0, 3),
    default=1.0,
    show_default=True,
    help="Factor on how far pictures are changed; 0 leaves them.",
)
@click.option(
    "--init",
    "initial",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Weights to start from, mnist_classifier.pt of an earlier run.  [default: random]",
)
@click.option(
    "--teacher",
    "teachers",
    type=click.Path(path_type=Path, dir_okay=False),
    multiple=True,
    help="Weights of other runs, to learn from beside the labels; may be repeated.",
)
@click.option(
    "--distillation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.9,
    show_default=True,
    help="Share of the loss that is the distance from the teachers' answers.",
)
@click.option(
    "--keep",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Which epoch's weights are kept: of the lowest validation loss, or of the last.",
)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 0.99),
    help="Of every dropout layer.  [default: the network's own]",
)
@SEED_OPTION
@TRAINING_DEVICE_OPTION
@RESUME_OPTION
@RISK_OPTION
@JSON_OPTION
@trains
def train(
    data_root: Path,
    run_folder: Path,
    figures: Path,
    logs: Path,
    network: Any,
    epochs: int,
    batch_size: int,
    synthetic: int,
    pictures: tuple[Path, ...],
    learning_rate: float,
    ema_decay: float,
    strength: float,
    initial: Path | None,
    teachers: tuple[Path, ...],
    distillation: float,
    keep: Any,
    dropout: float | None,
    seed: int,
    device: Any,
    risk: float,
    *,
    download: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Train, calibrate, export and evaluate a model on MNIST.

    Writes mnist_classifier.onnx, which "inkdigits serve --model" takes, with the weights, the
    temperature and run.json beside it. Ctrl-C loses the epoch under way; --resume goes on.
    """
    from inkdigits.data.mnist import load_splits
    from inkdigits.model.devices import resolve_device
    from inkdigits.training.augmentation import AugmentationConfig
    from inkdigits.training.checkpoint import TrainConfig
    from inkdigits.training.pipeline import train as run_recipe
    from inkdigits.training.run_folder import Folders

    if pictures and not synthetic:
        raise click.UsageError("--pictures and --synthetic 0 contradict each other")
    config = TrainConfig(
        network=network,
        epochs=epochs,
        batch_size=batch_size,
        synthetic=0.28 if synthetic else 0.0,
        others=0.16 if synthetic else 0.0,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        augmentation=AugmentationConfig().scaled(strength),
        dropout=dropout,
        distillation=distillation if teachers else 0.0,
        keep=keep,
        seed=seed,
    )
    splits = load_splits(data_root, download=download)
    on = resolve_device(device)
    say(f"training on {on}: {len(splits.train):,} pictures, {epochs} epochs")
    try:
        run = run_recipe(
            splits,
            config,
            Folders(run_folder, figures, logs),
            device=on,
            synthesis=_composition(synthetic, seed) if synthetic else None,
            pictures=pictures,
            initial=initial,
            teachers=teachers,
            resume=resume,
            risk=risk,
            progress=not as_json,
            report=say,
        )
    except KeyboardInterrupt:
        say(f"interrupted; the same command with --resume goes on from {run_folder}")
        sys.exit(130)
    say(f"wrote {run_folder} and {figures}")
    if as_json:
        click.echo(json.dumps(run))
