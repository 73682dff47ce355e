"""The command line: inkdigits serve | predict | train | evaluate | calibrate | export | benchmark.

Exit codes: 0 done; 1 something could not be done, with one line on standard error that says what;
2 the command was called wrongly; 130 interrupted. The training side is imported by the commands
that need it, so that the others start fast and without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from inkdigits.errors import BackendUnavailableError, ImageError, InkdigitsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from inkdigits.inference import Prediction

P = ParamSpec("P")
R = TypeVar("R")

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
TRAINING_PACKAGES = frozenset(
    {"matplotlib", "onnx", "onnxscript", "sklearn", "tensorboard", "torch", "torchvision", "tqdm"}
)
FILES_AT_A_TIME = 64

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
MODEL_OPTION = click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="MODEL_PATH",
    help="Artifact to read with.  [default: the one that comes with Inkdigits; env: MODEL_PATH]",
)
READER_DEVICE_OPTION = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="Read with PyTorch on this device.  [default: ONNX Runtime on the CPU]",
)
RISK_OPTION = click.option(
    "--risk",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.002,
    show_default=True,
    help="Tolerated share of wrong readings among the accepted.",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")


class Commands(click.Group):
    """Turns the errors that Inkdigits raises on purpose into one line and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except InkdigitsError as error:
            raise click.ClickException(str(error)) from error


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


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="inkdigits", prog_name="inkdigits")
def main() -> None:
    """Read handwritten digits and say how sure it is.

    Start the service with "inkdigits serve", or read pictures with "inkdigits predict FILE…".
    """


@main.command()
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1; env: INKDIGITS_HOST]")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port to listen on.  [default: 5000; env: PORT]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    help="Worker processes.  [default: one a core; env: INKDIGITS_WORKERS]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Threads a worker.  [default: 4; env: INKDIGITS_THREADS]",
)
@MODEL_OPTION
def serve(
    host: str | None,
    port: int | None,
    workers: int | None,
    threads: int | None,
    model_path: Path | None,
) -> None:
    """Serve the HTTP API until Ctrl-C.

    Options go before environment variables; docs/operations.md lists all settings.
    """
    from inkdigits.config import Settings
    from inkdigits.server import serve as serve_forever

    asked = {
        "host": host,
        "port": port,
        "workers": workers,
        "threads": threads,
        "model_path": model_path,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    serve_forever(replace(Settings.from_env(), **given))


@main.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@MODEL_OPTION
@READER_DEVICE_OPTION
@JSON_OPTION
def predict(paths: Sequence[Path], model_path: Path | None, device: Any, *, as_json: bool) -> None:
    """Read the digit in each picture; a folder stands for the pictures in it.

    Pictures may be PNG, JPEG, WebP, BMP, GIF or TIFF, of any size. A line that says "review" is
    a reading that isn't sure enough to be used unseen. Exit code 1 if any file can't be read.
    """
    from inkdigits.inference import load

    files = list(_expand(paths))
    reader = load(model_path, device=device)
    failed = 0
    rows: list[dict[str, Any]] = []
    width = max(len(str(path)) for path in files)
    if not as_json:
        click.echo(f"{'file':<{width}}  digit  confidence  decision")
    for start in range(0, len(files), FILES_AT_A_TIME):
        some = files[start : start + FILES_AT_A_TIME]
        for path, answer in zip(some, reader.predict_batch(some, on_error="return"), strict=True):
            if isinstance(answer, ImageError):
                failed += 1
                row: dict[str, Any] = {"file": str(path), "error": str(answer)}
                line = f"{path!s:<{width}}  error: {answer}"
            else:
                row = {"file": str(path), **_as_json(answer)}
                line = f"{path!s:<{width}}  {_as_line(answer)}"
            if as_json:
                rows.append(row)
            else:
                click.echo(line)
    if as_json:
        click.echo(json.dumps({"model_version": reader.model_version, "predictions": rows}))
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} files can't be read")


def _expand(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
            if not inside:
                raise click.ClickException(
                    f"{path} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})"
                )
            yield from inside
        else:
            yield path


def _as_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "prediction": prediction.digit,
        "confidence": prediction.confidence,
        "probabilities": list(prediction.probabilities),
        "decision": prediction.decision,
        "reason": prediction.reason,
        "novelty": prediction.novelty,
    }


def _as_line(prediction: Prediction) -> str:
    digit = "-" if prediction.digit is None else str(prediction.digit)
    # Rounded down: "100.00 %" is for what is certain, and nothing read from a picture is.
    percent = int(prediction.confidence * 10_000) / 100
    why = f" ({prediction.reason})" if prediction.reason else ""
    return f"{digit:>5}  {percent:>8.2f} %  {prediction.decision}{why}"


@main.command()
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
@click.option("--epochs", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=2), default=128, show_default=True)
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
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="auto is the first present of cuda, mps, cpu.",
)
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in the folder.")
@RISK_OPTION
@JSON_OPTION
@trains
def train(
    data_root: Path,
    run_folder: Path,
    figures: Path,
    logs: Path,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    ema_decay: float,
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
    from inkdigits.data import load_splits
    from inkdigits.recipe import Folders
    from inkdigits.recipe import train as run_recipe
    from inkdigits.train import TrainConfig, resolve_device

    config = TrainConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        seed=seed,
    )
    splits = load_splits(data_root, download=download)
    on = resolve_device(device)
    _say(f"training on {on}: {len(splits.train):,} pictures, {epochs} epochs")
    try:
        run = run_recipe(
            splits,
            config,
            Folders(run_folder, figures, logs),
            device=on,
            resume=resume,
            risk=risk,
            progress=not as_json,
            report=_say,
        )
    except KeyboardInterrupt:
        _say(f"interrupted; the same command with --resume goes on from {run_folder}")
        sys.exit(130)
    _say(f"wrote {run_folder} and {figures}")
    if as_json:
        click.echo(json.dumps(run))


@main.command()
@DATA_OPTION
@DOWNLOAD_OPTION
@MODEL_OPTION
@READER_DEVICE_OPTION
@FIGURES_OPTION
@JSON_OPTION
@trains
def evaluate(
    data_root: Path,
    model_path: Path | None,
    device: Any,
    figures: Path,
    *,
    download: bool,
    as_json: bool,
) -> None:
    """Score an artifact on MNIST's 10,000 test pictures, sent as PNG files."""
    from inkdigits.data import load_splits
    from inkdigits.inference import load
    from inkdigits.recipe import draw_evaluation, evaluate_reader

    reader = load(model_path, device=device)
    splits = load_splits(data_root, download=download)
    scores, shares = evaluate_reader(reader, splits.test)
    draw_evaluation(scores, shares, splits.test, figures)
    if as_json:
        click.echo(json.dumps({"model_version": reader.model_version, **scores.to_dict()}))
        return
    click.echo(f"{reader.model_version} on {scores.n:,} test pictures\n")
    click.echo(scores.summary())
    click.echo(f"\n{scores.report}\n\nfigures are in {figures}")


@main.command()
@DATA_OPTION
@DOWNLOAD_OPTION
@RUN_OPTION
@FIGURES_OPTION
@RISK_OPTION
@JSON_OPTION
@trains
def calibrate(
    data_root: Path,
    run_folder: Path,
    figures: Path,
    risk: float,
    *,
    download: bool,
    as_json: bool,
) -> None:
    """Fit a run's temperature and accept threshold again; "inkdigits export" then applies them."""
    from inkdigits.data import load_splits
    from inkdigits.recipe import WEIGHTS_NAME, Folders, calibrate_weights, read_weights

    weights = read_weights(run_folder / WEIGHTS_NAME)
    splits = load_splits(data_root, download=download)
    folders = Folders(run_folder, figures, figures)
    result, _ = calibrate_weights(weights, splits.calibration, folders, risk=risk, report=_say)
    if as_json:
        click.echo(json.dumps(result.to_dict()))


@main.command()
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


@main.command()
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
        progress=None if as_json else _say,
        **sizes,
    )
    plots.save(plots.speedup_chart(result.speedups()), chart)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    else:
        click.echo(result.table())
        click.echo(f"\nthe chart is in {chart}")


def _say(line: str) -> None:
    """To standard error, so that standard output holds only the result."""
    click.echo(line, err=True)
