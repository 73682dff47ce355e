"""The commands about a trained model: evaluate, calibrate, export, benchmark.

They import torch and its kin when they run, so that the other commands start without.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli import options
from inkdigits.cli.options import answer, counted, option, progress_bar, say

if TYPE_CHECKING:
    from inkdigits.reader import DigitReader

_RUN = option(
    "--run run_folder", "Folder of the training run.", options.FOLDER, default="saved_models"
)


@click.command()
@options.SOURCES
@options.PATTERN
@options.DOWNLOAD
@options.MODEL
@options.device("Read with PyTorch on this device")
@options.FIGURES
@option(
    "--robustness",
    "Score corrupted digits, other writers' digits and pictures without a digit instead, all made "
    "from MNIST's test part in the folder --data.",
    is_flag=True,
)
@option(
    "--per-family",
    "With --robustness: pictures per family, but all clean digits.  [default: 1000]",
    options.COUNT,
)
@options.JSON
def evaluate(
    sources: tuple[str, ...],
    pattern: str | None,
    model_path: Path | None,
    device: Any,
    figures: Path,
    per_family: int | None,
    *,
    download: bool,
    robustness: bool,
    as_json: bool,
) -> None:
    """Score a model on labelled pictures.

    It says how many are read right, how many are accepted, and how many of those are wrong. Without
    --data it scores MNIST's 10,000 test pictures in the folder data, sent as PNG files. It writes
    report.html and misread.png to the folder --figures. Only --robustness and --download need the
    extra "train".
    """
    from inkdigits.data.labelled import describe_left_out, read_labelled
    from inkdigits.evaluation.readings import read_all
    from inkdigits.evaluation.report import score
    from inkdigits.model.artifact import write_atomically
    from inkdigits.reader import load

    if per_family and not robustness:
        raise click.UsageError("--per-family needs --robustness")
    if robustness and (len(sources) > 1 or pattern):
        raise click.UsageError("--robustness takes one --data, the folder of MNIST, no --pattern")
    reader = load(model_path, device=device)
    if not sources:
        sources = ("data",)
        if download:
            _fetch_mnist(Path("data"))
    if robustness:
        _measure_robustness(reader, Path(sources[0]), figures, per_family, download, as_json)
        return
    with progress_bar(quiet=as_json) as show:
        report = score(read_all(reader, read_labelled(sources, pattern=pattern), show))
    describe_left_out(report.readings.left_out, say)
    write_atomically(figures / "report.html", report.html().encode())
    if (sheet := report.sheet()) is not None:
        write_atomically(figures / "misread.png", sheet)
    summary = "" if report.digits is None else f"\n\n{report.digits.summary()}"
    pictures = counted(len(report.readings.labels), "labelled picture")
    head = f"{reader.model_version} on {pictures}"
    text = f"{head}\n\n{report.table()}{summary}\n\nThe report is {figures / 'report.html'}"
    answer(report.to_dict(), text, as_json=as_json)


def _fetch_mnist(folder: Path) -> None:
    if not any((folder / "MNIST" / "raw").glob("t10k-images-idx3-ubyte*")):
        from inkdigits.data.mnist import load_splits

        load_splits(folder, download=True)


def _measure_robustness(
    reader: DigitReader,
    folder: Path,
    figures: Path,
    per_family: int | None,
    download: bool,
    as_json: bool,
) -> None:
    from inkdigits.data.mnist import load_splits
    from inkdigits.evaluation import plots
    from inkdigits.evaluation.robustness import PER_FAMILY, measure_robustness

    splits = load_splits(folder, download=download, report=say)
    test, hands = splits.test, splits.calibration_hands
    writers = None if test.writers is None else test.writers.numpy()
    result = measure_robustness(
        *(reader, test.inks.numpy(), test.labels.numpy()),
        per_family=per_family or PER_FAMILY,
        writers=writers,
        hands=hands,
        report=say,
    )
    chart = plots.save(plots.robustness_figure(result), figures / "robustness.png")
    text = f"{reader.model_version}\n\n{result.table()}\n\nThe figure is {chart}"
    answer(result.to_dict(), text, as_json=as_json)


@click.command()
@options.SOURCES
@options.PATTERN
@options.MODEL
@options.RISK
@option(
    "--out",
    "Folder of the new version, such as models/2026-11; it must hold no model yet.",
    options.FOLDER,
    required=True,
)
@options.JSON
def calibrate(
    sources: tuple[str, ...],
    pattern: str | None,
    model_path: Path | None,
    risk: float,
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Fit temperature and thresholds to your own pictures.

    The network stays as it is. The pictures must be like those that will be read, and must not
    have trained the model. It says which risk this number of pictures supports. If they do not
    support --risk, nothing is written.
    """
    from inkdigits.data.labelled import describe_left_out, read_labelled
    from inkdigits.model.artifact import ARTIFACT_NAME, read_artifact, write_atomically
    from inkdigits.reader import load
    from inkdigits.training.recalibrate import described, recalibrate

    if not sources:
        raise click.UsageError("name the labelled pictures with --data")
    if (out / ARTIFACT_NAME).exists():
        raise click.UsageError(f"{out} holds a model already; name a new folder with --out")
    with progress_bar(quiet=as_json) as show:
        reader = load(model_path)
        pictures = read_labelled(sources, pattern=pattern).inks(reader.preprocess, show)
    describe_left_out(pictures.left_out, say)
    artifact, metadata = recalibrate(read_artifact(model_path), pictures, risk=risk, report=say)
    content = described(metadata)
    write_atomically(out / ARTIFACT_NAME, artifact)
    write_atomically(out / "run.json", (json.dumps(content, indent=2) + "\n").encode())
    text = f"wrote {out / ARTIFACT_NAME}: {metadata.model_version}"
    answer(content, text, as_json=as_json)


@click.command()
@_RUN
@option(
    "--to target",
    "File to write.  [default: mnist_classifier.onnx in the run's folder]",
    options.FILE,
)
@option(
    "--segmenter",
    "Network that finds ink.  [default: the run's, or the one that comes with Inkdigits]",
    options.FILE,
)
def export(run_folder: Path, target: Path | None, segmenter: Path | None) -> None:
    """Write a training run as the artifact to serve."""
    from inkdigits.model.artifact import ARTIFACT_NAME, write_atomically
    from inkdigits.reader import load
    from inkdigits.training.pipeline import export_run
    from inkdigits.training.run_folder import read_segmenter_file

    target = target or run_folder / ARTIFACT_NAME
    artifact = export_run(run_folder, read_segmenter_file(segmenter) if segmenter else None)
    write_atomically(target, artifact)
    click.echo(f"wrote {target}: {load(target).model_version}")


@click.command()
@options.DATA
@options.DOWNLOAD
@_RUN
@options.FIGURES
def quantise(data_root: Path, run_folder: Path, figures: Path, *, download: bool) -> None:
    """Add the network in int8 to a run's artifact.

    CPUs then read in about half the time. Run it after "inkdigits train" or "inkdigits export"; the
    artifact's version changes.
    """
    from inkdigits.data.mnist import load_splits
    from inkdigits.training.config import Folders
    from inkdigits.training.provenance import split_of_weights
    from inkdigits.training.quantise import quantise_run
    from inkdigits.training.run_folder import WEIGHTS_NAME

    by = split_of_weights(run_folder / WEIGHTS_NAME)
    splits = load_splits(data_root, download=download, by=by, report=say)
    quantise_run(Folders(run_folder, figures, figures), splits, report=say)


@click.command()
@options.MODEL
@options.device("Accelerator to compare with the CPU", "auto")
@option("--chart", "File for the chart of speed-ups.", options.FILE, "outputs/figures/speedups.png")
@option("--quick", "Measure small sizes only, to see that it works.", is_flag=True)
@options.JSON
def benchmark(
    model_path: Path | None, device: Any, chart: Path, *, quick: bool, as_json: bool
) -> None:
    """Compare the speed of CPU, accelerator and ONNX Runtime.

    It measures matrix products, inference and training.
    """
    from inkdigits.evaluation import plots
    from inkdigits.evaluation.speed import run_benchmark

    sizes: dict[str, Any] = {"sizes": (200,), "batches": (1, 16), "repeats": 2} if quick else {}
    done = count()
    with progress_bar(quiet=as_json) as show:
        result = run_benchmark(
            device=device,
            artifact_path=model_path,
            progress=lambda task: show(next(done), None, task),
            **sizes,
        )
    plots.save(plots.speedup_chart(result.speedups()), chart)
    text = f"{result.table()}\n\nThe chart is {chart}"
    answer(result.to_dict(), text, as_json=as_json)
