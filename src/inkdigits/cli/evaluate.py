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

_RUN = option("--run run_folder", "Folder of the training run.", options.FOLDER, "saved_models")


@click.command()
@options.SOURCES
@options.PATTERN
@options.DOWNLOAD
@options.MODEL
@options.device("Read with PyTorch on this device")
@options.FIGURES
@option(
    "--robustness",
    "Score corrupted digits, digits of other writers and pictures without a digit. "
    "With this option, --data is the folder of MNIST.",
    is_flag=True,
)
@option(
    "--per-family",
    "With --robustness: pictures per group. The number of clean digits is not limited.  "
    "[default: 1000]",
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

    The table shows the accuracy, the accepted readings, and the wrong accepted readings. Without
    --data, the command encodes MNIST's 10,000 test pictures as PNG and scores them. It writes
    report.html and misread.png to the folder --figures. Only --robustness and the download of MNIST
    require the extra "train".
    """
    from inkdigits.data.labelled import describe_left_out, read_labelled
    from inkdigits.evaluation.readings import read_all
    from inkdigits.evaluation.report import score
    from inkdigits.model.artifact import write_atomically
    from inkdigits.reader import load

    if per_family and not robustness:
        raise click.UsageError("--per-family needs --robustness")
    if robustness and (len(sources) > 1 or pattern):
        raise click.UsageError(
            "--robustness needs one --data, the folder of MNIST, and no --pattern"
        )
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
    text = f"{head}\n\n{report.table()}{summary}\n\nReport: {figures / 'report.html'}"
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
    text = f"{reader.model_version}\n\n{result.table()}\n\nFigure: {chart}"
    answer(result.to_dict(), text, as_json=as_json)


@click.command()
@options.SOURCES
@options.PATTERN
@options.MODEL
@options.RISK
@option(
    "--out",
    "Folder for the new version, such as models/2026-11. The folder must not contain a model.",
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
    """Fit the temperature and the thresholds to your own pictures.

    The network does not change. The pictures must be similar to the pictures that the model will
    read. The training pictures of the model are not allowed. The command prints the smallest risk
    that the pictures support. If --risk is smaller, the command writes nothing.
    """
    from inkdigits.data.labelled import describe_left_out, read_labelled
    from inkdigits.model.artifact import ARTIFACT_NAME, read_artifact, write_atomically
    from inkdigits.model.backends import OnnxBackend
    from inkdigits.training.recalibrate import described, recalibrate

    if not sources:
        raise click.UsageError("name the labelled pictures with --data")
    if (out / ARTIFACT_NAME).exists():
        raise click.UsageError(f"{out} already contains a model; name another folder with --out")
    with progress_bar(quiet=as_json) as show:
        artifact = read_artifact(model_path)
        segmenter = OnnxBackend(artifact, threads=1, int8=False).segmenter
        pictures = read_labelled(sources, pattern=pattern).inks(segmenter, show)
    describe_left_out(pictures.left_out, say)
    artifact, metadata = recalibrate(artifact, pictures, risk=risk, report=say)
    content = described(metadata)
    write_atomically(out / ARTIFACT_NAME, artifact)
    write_atomically(out / "run.json", (json.dumps(content, indent=2) + "\n").encode())
    text = f"wrote {out / ARTIFACT_NAME}: {metadata.model_version}"
    answer(content, text, as_json=as_json)


@click.command()
@_RUN
@option(
    "--to target",
    "Artifact to write.  [default: mnist_classifier.onnx in the folder of the run]",
    options.FILE,
)
@option(
    "--segmenter",
    "File with the network that finds ink.  [default: the network of the run or the shipped one]",
    options.FILE,
)
def export(run_folder: Path, target: Path | None, segmenter: Path | None) -> None:
    """Export a training run as an artifact."""
    from inkdigits.model.artifact import ARTIFACT_NAME, write_atomically
    from inkdigits.reader import load
    from inkdigits.training.pipeline import export_run

    target = target or run_folder / ARTIFACT_NAME
    write_atomically(target, export_run(run_folder, segmenter))
    click.echo(f"wrote {target}: {load(target).model_version}")


@click.command()
@options.DATA
@options.DOWNLOAD
@_RUN
@options.FIGURES
def quantise(data_root: Path, run_folder: Path, figures: Path, *, download: bool) -> None:
    """Add an int8 network to the artifact of a training run.

    The int8 network halves the reading time on CPUs. Use this command after "inkdigits export". The
    version of the artifact changes.
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
@options.device("Device to compare with the CPU", "auto")
@option("--chart", "File for the chart of speed-ups.", options.FILE, "outputs/figures/speedups.png")
@option("--quick", "Use small matrices and batches for a quick test.", is_flag=True)
@options.JSON
def benchmark(
    model_path: Path | None, device: Any, chart: Path, *, quick: bool, as_json: bool
) -> None:
    """Compare the speed of the CPU, the accelerator and ONNX Runtime.

    The command measures the speed of matrix products, inference and training.
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
    text = f"{result.table()}\n\nChart: {chart}"
    answer(result.to_dict(), text, as_json=as_json)
