"""The commands that make pictures to learn from, and that learn from them.

They import torch and its kin when they run, so that the other commands start without.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli import options
from inkdigits.cli.options import needs_training_extra, resumable, say

if TYPE_CHECKING:
    from inkdigits.data.synthesis import SynthesisConfig
    from inkdigits.training.config import RunConfig

_SYNTHETIC = 180_000
# Shares of each batch that are synthetic digits, and pictures without a digit.
_SYNTHETIC_SHARE, _OTHERS_SHARE = 0.28, 0.16
# What --quick changes by default: a first model in ten minutes on two cores.
_QUICK: dict[str, Any] = {
    "epochs": 6,
    "synthetic": 24_000,
    "n_teachers": 0,
    "classic_epochs": 3,
    "calibration_synthetic": 3_000,
}
# And where the run is not the whole recipe: another network, or one that does not start anew.
_ALONE: dict[str, Any] = {"n_teachers": 0, "classic_epochs": 0}
# Dropout of a network that teachers teach.
_TAUGHT_DROPOUT = 0.1


@click.command(short_help="Make pictures to train on beside MNIST.")
@options.DATA
@options.DOWNLOAD
@click.option(
    "--out",
    type=options.FILE,
    default="saved_models/synthetic.npz",
    help='File to write; pass it to "inkdigits train --pictures".',
)
@click.option(
    "--synthetic",
    type=options.COUNT,
    default=_SYNTHETIC,
    help="About how many pictures to make: two thirds are digits, a third has none.",
)
@options.SEED
@needs_training_extra
def synthesise(data_root: Path, out: Path, synthetic: int, seed: int, *, download: bool) -> None:
    """Make pictures to train on beside MNIST, from its digits and from the installed fonts.

    "inkdigits train" makes its own. Runs that are given the same file share it.
    """
    from inkdigits.data.mnist import load_splits
    from inkdigits.data.synthesis_cache import write_synthetic

    splits = load_splits(data_root, download=download, report=say)
    composition = _synthesis(synthetic, seed)
    write_synthetic(splits.train, composition, out, splits.train_hands, progress=True, report=say)
    say(f"wrote {out}")


def _synthesis(pictures: int, seed: int) -> SynthesisConfig:
    from inkdigits.data.synthesis import SynthesisConfig

    return SynthesisConfig(digits=pictures - pictures // 3, others=pictures // 3, seed=seed)


@click.command(short_help="Train, calibrate, export and evaluate a model.")
@options.DATA
@options.DOWNLOAD
@click.option(
    "--out",
    type=options.FOLDER,
    default="saved_models",
    help="Folder for the weights, the artifact and run.json.",
)
@options.FIGURES
@click.option(
    "--logs",
    type=options.FOLDER,
    default="outputs/logs",
    help="Folder for TensorBoard's event files.",
)
@click.option(
    "--network",
    type=click.Choice(["DigitNet", "MNISTClassifier", "TeacherNet"]),
    default="DigitNet",
    help="Network to train: DigitNet is the shipped one, and TeacherNet teaches it.",
)
@click.option(
    "--quick", is_flag=True, help="A first model in ten minutes: fewer pictures and epochs."
)
@click.option("--epochs", type=options.COUNT, default=36, help="Passes over the training pictures.")
@click.option(
    "--teachers",
    "n_teachers",
    type=click.IntRange(0, 20),
    default=2,
    help="Networks to train first and learn from. None for another network, with --init or with "
    "--teacher.",
)
@click.option(
    "--teacher-epochs", type=options.COUNT, default=16, help="Epochs of each of those networks."
)
@click.option(
    "--classic-epochs",
    type=click.IntRange(min=0),
    default=30,
    help="Epochs of MNISTClassifier, which is trained beside DigitNet; 0 leaves it out.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=8),
    default=512,
    help="Pictures per step, synthetic ones included.",
)
@click.option(
    "--synthetic",
    type=click.IntRange(min=0),
    default=_SYNTHETIC,
    help="Pictures to make beside MNIST, 44 % of each batch: two thirds are digits (photographed, "
    "corrupted, in low resolution or drawn), a third has no digit. 0 trains on clean digits only; "
    "the model then rejects nothing as no digit.",
)
@click.option(
    "--pictures",
    type=options.FILE,
    multiple=True,
    help='Files of "inkdigits synthesise" to use instead of making pictures; can be repeated.',
)
@click.option("--learning-rate", type=float, default=4e-3, help="Peak of the one-cycle schedule.")
@click.option(
    "--ema-decay",
    type=click.FloatRange(0, 0.999999),
    default=0.999,
    help="Decay per step of the moving average of the weights; 0 keeps no average.",
)
@click.option(
    "--augmentation",
    type=click.FloatRange(0, 3),
    default=1.2,
    help="Strength of augmentation; 0 leaves pictures unchanged.",
)
@click.option(
    "--init",
    "initial",
    type=options.FILE,
    help="Weights to start from, mnist_classifier.pt of another run.  [default: random]",
)
@click.option(
    "--teacher",
    "teachers",
    type=options.FILE,
    multiple=True,
    help="Weights of other runs to learn from beside the labels; can be repeated.",
)
@click.option(
    "--distillation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.8,
    help="Share of the loss that is the distance from the teachers' answers.",
)
@click.option(
    "--keep",
    type=click.Choice(["best", "last"]),
    default="last",
    help="Keep the weights of the epoch with the lowest validation loss, or of the last.",
)
@click.option(
    "--dropout",
    type=click.FloatRange(0, 0.99),
    help="Probability of every dropout layer.  [default: the network's own; 0.1 with teachers]",
)
@options.SEED
@click.option(
    "--device",
    type=options.DEVICES,
    default="auto",
    help="Device to train on; auto is the first present of cuda, mps, cpu.",
)
@click.option("--resume", is_flag=True, help="Resume the interrupted run in the folder.")
@options.RISK
@options.JSON
@click.pass_context
@needs_training_extra
def train(
    ctx: click.Context,
    /,
    data_root: Path,
    *,
    download: bool,
    as_json: bool,
    quick: bool,
    **settings: Any,
) -> None:
    """Train, calibrate, export and evaluate a model on MNIST, from data to artifact.

    Makes pictures, trains teachers and the network that they teach, calibrates and evaluates it,
    and adds int8 and MNISTClassifier. Writes mnist_classifier.onnx, which "inkdigits serve --model"
    serves, with the weights, the temperature and run.json beside it. Ctrl-C loses the epoch under
    way; the same command with --resume keeps what is done and continues.
    """
    from inkdigits.data.mnist import load_splits
    from inkdigits.model.devices import resolve_device
    from inkdigits.training.recipe import Plan, run_recipe

    def default_to(values: dict[str, Any]) -> None:
        given = click.core.ParameterSource.DEFAULT
        for name, value in values.items():
            if name not in settings or ctx.get_parameter_source(name) is given:
                settings[name] = value

    if quick:
        default_to(_QUICK)
    alone = settings["network"] != "DigitNet" or settings["initial"] or settings["teachers"]
    if alone:
        default_to(_ALONE)
    n_teachers = settings.pop("n_teachers")
    plan = Plan(
        n_teachers,
        settings.pop("teacher_epochs"),
        settings.pop("classic_epochs"),
        int8=settings["network"] == "DigitNet",
    )
    taught = bool(n_teachers or settings["teachers"])
    if taught and settings["dropout"] is None:
        settings["dropout"] = _TAUGHT_DROPOUT
    run = _run_config(**settings, taught=taught, progress=not as_json)
    splits = load_splits(data_root, download=download, report=say)
    device = resolve_device(run.device)
    say(f"training on {device}: {len(splits.train):,} pictures, {run.train.epochs} epochs")
    with resumable(run.folders.run):
        described = run_recipe(splits, run, plan, device, report=say)
    say(f"wrote {run.folders.run} and {run.folders.figures}")
    if as_json:
        click.echo(json.dumps(described))


def _run_config(
    synthetic: int, augmentation: float, distillation: float, *, taught: bool, **settings: Any
) -> RunConfig:
    """Return the settings that the options stand for; others have the names of the settings."""
    from inkdigits.training.augmentation import AugmentationConfig
    from inkdigits.training.config import Folders, RunConfig, TrainConfig

    if settings["pictures"] and not synthetic:
        raise click.UsageError("--pictures and --synthetic 0 contradict each other")
    direct = (
        *("network", "epochs", "batch_size", "learning_rate", "ema_decay"),
        *("dropout", "keep", "seed"),
    )
    config = TrainConfig(
        synthetic=_SYNTHETIC_SHARE if synthetic else 0.0,
        others=_OTHERS_SHARE if synthetic else 0.0,
        augmentation=AugmentationConfig().scaled(augmentation),
        distillation=distillation if taught else 0.0,
        **{name: settings.pop(name) for name in direct},
    )
    synthesis = _synthesis(synthetic, config.seed) if synthetic else None
    folders = Folders(*(settings.pop(name) for name in ("out", "figures", "logs")))
    return RunConfig(config, folders, synthesis=synthesis, **settings)
