"""The commands of the training side: train, evaluate, calibrate, export, benchmark.

They import torch and its kin when they run, so that the other commands start without.
"""

from __future__ import annotations

import json
import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from inkdigits.errors import BackendUnavailableError
from inkdigits.options import JSON_OPTION, MODEL_OPTION, READER_DEVICE_OPTION, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from inkdigits.data import Digits
    from inkdigits.inference import DigitReader

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
    default=180_000,
    show_default=True,
    help="Pictures to make beside MNIST: two thirds digits on paper, corrupted, in low "
    "resolution or drawn, a third without a digit; together 44 % of each batch. 0 trains on clean "
    "digits only, and nothing can then be refused as no digit.",
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
    from inkdigits.augmentation import AugmentationConfig
    from inkdigits.data import load_splits
    from inkdigits.devices import resolve_device
    from inkdigits.recipe import train as run_recipe
    from inkdigits.run_files import Folders
    from inkdigits.synthesis import SynthesisConfig
    from inkdigits.training_state import TrainConfig

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
            synthesis=SynthesisConfig(
                digits=synthetic - synthetic // 3, others=synthetic // 3, seed=seed
            )
            if synthetic
            else None,
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


@click.command(short_help="Score an artifact on the test pictures.")
@DATA_OPTION
@DOWNLOAD_OPTION
@MODEL_OPTION
@READER_DEVICE_OPTION
@FIGURES_OPTION
@click.option(
    "--robustness",
    is_flag=True,
    help="Score corrupted digits, other hands and what isn't a digit instead.",
)
@click.option(
    "--per-family",
    type=click.IntRange(min=1),
    help="With --robustness: pictures of each family; clean digits are all read.  [default: 1000]",
)
@click.option(
    "--severity",
    "severities",
    type=click.IntRange(1, 5),
    multiple=True,
    help="With --robustness: of the corruptions, can be repeated.  [default: MNIST-C's]",
)
@JSON_OPTION
@trains
def evaluate(
    data_root: Path,
    model_path: Path | None,
    device: Any,
    figures: Path,
    per_family: int | None,
    severities: tuple[int, ...],
    *,
    download: bool,
    robustness: bool,
    as_json: bool,
) -> None:
    """Score an artifact on MNIST's 10,000 test pictures, sent as PNG files."""
    from inkdigits.data import load_splits
    from inkdigits.inference import load
    from inkdigits.recipe import draw_evaluation, evaluate_reader

    if not robustness and (per_family is not None or severities):
        raise click.UsageError("--per-family and --severity go with --robustness")
    reader = load(model_path, device=device)
    splits = load_splits(data_root, download=download)
    if robustness:
        _evaluate_robustness(reader, splits.test, per_family, severities, figures, as_json=as_json)
        return
    scores, shares = evaluate_reader(reader, splits.test)
    draw_evaluation(scores, shares, splits.test, figures)
    if as_json:
        click.echo(json.dumps({"model_version": reader.model_version, **scores.to_dict()}))
        return
    click.echo(f"{reader.model_version} on {scores.n:,} test pictures\n")
    click.echo(scores.summary())
    click.echo(f"\n{scores.report}\n\nfigures are in {figures}")


def _evaluate_robustness(
    reader: DigitReader,
    digits: Digits,
    per_family: int | None,
    severities: tuple[int, ...],
    figures: Path,
    *,
    as_json: bool,
) -> None:
    from inkdigits.plots import save
    from inkdigits.robustness import PER_FAMILY, measure_robustness
    from inkdigits.robustness_plots import robustness_figure

    result = measure_robustness(
        reader,
        digits.inks.numpy(),
        digits.labels.numpy(),
        per_family=per_family or PER_FAMILY,
        severities=severities or None,
        report=say,
    )
    chart = save(robustness_figure(result), figures / "robustness.png")
    if as_json:
        click.echo(json.dumps(result.to_dict()))
        return
    click.echo(f"{reader.model_version}\n\n{result.table()}\n\nthe figure is {chart}")


@click.command(short_help="Fit temperature and threshold again.")
@DATA_OPTION
@DOWNLOAD_OPTION
@RUN_OPTION
@FIGURES_OPTION
@RISK_OPTION
@click.option(
    "--synthetic",
    type=click.IntRange(min=0),
    default=14_800,
    show_default=True,
    help="Digits to make from the calibration digits, for a temperature that fits both.",
)
@JSON_OPTION
@trains
def calibrate(
    data_root: Path,
    run_folder: Path,
    figures: Path,
    risk: float,
    synthetic: int,
    *,
    download: bool,
    as_json: bool,
) -> None:
    """Fit a run's temperature, thresholds and novelty again; "inkdigits export" applies them."""
    from inkdigits.data import load_splits
    from inkdigits.recipe import calibrate_weights
    from inkdigits.run_files import WEIGHTS_NAME, Folders, read_weights

    weights = read_weights(run_folder / WEIGHTS_NAME)
    splits = load_splits(data_root, download=download)
    folders = Folders(run_folder, figures, figures)
    point = calibrate_weights(
        weights, splits, folders, synthetic=synthetic or None, risk=risk, report=say
    )
    if as_json:
        click.echo(json.dumps(point.calibration.to_dict()))


@click.command(short_help="Write a run as the artifact to serve.")
@RUN_OPTION
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write.  [default: mnist_classifier.onnx in the run's folder]",
)
@trains
def export(run_folder: Path, target: Path | None) -> None:
    """Write a run's weights, temperature and threshold as the artifact that is served."""
    from inkdigits.artifact import ARTIFACT_NAME, write_atomically
    from inkdigits.inference import load
    from inkdigits.recipe import export_run

    target = target or run_folder / ARTIFACT_NAME
    write_atomically(target, export_run(run_folder))
    click.echo(f"wrote {target}: {load(target).model_version}")


@click.command(short_help="Compare CPU, accelerator and ONNX Runtime.")
@MODEL_OPTION
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="Accelerator to compare with the CPU; auto is the best present.",
)
@click.option(
    "--chart",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("outputs/figures/speedups.png"),
    show_default=True,
    help="File for the chart of speed-ups.",
)
@click.option("--quick", is_flag=True, help="Small sizes, to see that it works.")
@JSON_OPTION
@trains
def benchmark(
    model_path: Path | None, device: Any, chart: Path, *, quick: bool, as_json: bool
) -> None:
    """Compare CPU, accelerator and ONNX Runtime on matrix products, inference and training."""
    from inkdigits import plots
    from inkdigits.accelerator import run_benchmark

    sizes: dict[str, Any] = {"sizes": (200,), "batches": (1, 16), "repeats": 2} if quick else {}
    result = run_benchmark(
        device=device,
        artifact_path=model_path,
        progress=None if as_json else say,
        **sizes,
    )
    plots.save(plots.speedup_chart(result.speedups()), chart)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        click.echo(result.table())
        click.echo(f"\nthe chart is in {chart}")
