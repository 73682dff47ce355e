"""Figures drawn with matplotlib from results that were computed elsewhere.

Each function takes results and returns a Figure. Nothing is shown on a screen, and no global state
(pyplot, rcParams) changes. The colours are those of Okabe and Ito, which colour-blind viewers can
tell apart (jfly.uni-koeln.de/color, 2008).
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from inkdigits.calibration.intervals import wilson_interval
from inkdigits.calibration.scores import ReliabilityCurve
from inkdigits.evaluation.robustness_report import RobustnessReport
from inkdigits.model.artifact import write_atomically

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
TIMES = "\N{MULTIPLICATION SIGN}"
_GROUP_COLOURS = {"clean": GREEN, "corruption": BLUE, "other": ORANGE}
_BINS: dict[str, Any] = {"color": BLUE, "marker": "o", "linestyle": "none", "capsize": 3}
_KEPT: dict[str, Any] = {"color": "black", "marker": "*", "markersize": 11, "clip_on": False}


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as a PNG of 150 dots per inch, atomically, and return its path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Figure(), f"{folder}/figures/empty.png").name
    'empty.png'
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    write_atomically(Path(path), buffer.getvalue())
    return Path(path)


def reliability_diagram(before: ReliabilityCurve, after: ReliabilityCurve) -> Figure:
    """Draw accuracy against confidence, before and after, above histograms of the confidence.

    Each point is a bin, with its 95 % Wilson interval. Points on the diagonal are calibrated.

    >>> from inkdigits.calibration.scores import reliability_curve
    >>> shares = np.array([[0.82] + [0.02] * 9] * 5)
    >>> curve = reliability_curve(shares, np.array([0, 0, 0, 0, 1]))
    >>> reliability_diagram(curve, curve).axes[0].get_title()
    'Before calibration: ECE 2.00 %'
    """
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    figure.suptitle(f"Does the confidence match the accuracy?   n = {before.n:,}", fontsize=14)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, (title, curve) in enumerate((("Before", before), ("After", after))):
        top: Axes = axes[0, column]
        bottom: Axes = axes[1, column]
        hits = np.rint(curve.accuracy * curve.count).astype(int)
        intervals = [wilson_interval(*pair) for pair in zip(hits, curve.count, strict=True)]
        errors = np.abs(np.array(intervals).T - curve.accuracy)
        top.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="calibrated")
        top.errorbar(curve.confidence, curve.accuracy, errors, label="bins, 95 % interval", **_BINS)
        top.set(xlim=(0, 1.02), ylim=(-0.02, 1.02))
        top.set_title(f"{title} calibration: ECE {100 * curve.ece:.2f} %")
        top.grid(alpha=0.3)
        width = curve.upper - curve.lower
        bottom.bar(
            curve.lower, curve.count, width=width, align="edge", color=ORANGE, edgecolor="white"
        )
        bottom.set_yscale("log")
        bottom.set(ylim=(0.7, 2 * curve.n), xlabel="confidence of the predicted digit")
        bottom.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("pictures (log)")
    axes[0, 0].legend(loc="lower right")
    return figure


def confusion_matrix_figure(matrix: npt.NDArray[np.int64]) -> Figure:
    """Draw (10, 10) counts, row = true digit, column = predicted; only mistakes are coloured.

    >>> confusion_matrix_figure(np.eye(10, dtype=int)).axes[0].get_title()
    'True and predicted digits: 0 of 10 wrong'
    """
    n, wrong = int(matrix.sum()), int(matrix.sum() - np.trace(matrix))
    # Hundreds of hits beside single mistakes: one colour scale for both would hide the mistakes.
    mistakes = matrix - np.diag(np.diag(matrix))
    figure = Figure(figsize=(7.5, 7.2), layout="constrained")
    axes = figure.subplots()
    darkest = max(2, int(mistakes.max()))
    axes.imshow(np.ma.masked_equal(mistakes, 0), cmap="Oranges", vmin=0, vmax=darkest)
    for true, predicted in np.argwhere((matrix > 0) | np.eye(10, dtype=bool)).tolist():
        count, hit = int(matrix[true, predicted]), true == predicted
        colour = BLUE if hit else "white" if count > 0.6 * darkest else "black"
        weight, size = ("normal", 10) if hit else ("bold", 12)
        position = {"ha": "center", "va": "center"}
        axes.text(predicted, true, f"{count:,}", position, color=colour, weight=weight, size=size)
    axes.set(xticks=range(10), yticks=range(10))
    axes.set(xlabel="predicted digit", ylabel="true digit")
    axes.set_xticks(np.arange(-0.5, 10), minor=True)
    axes.set_yticks(np.arange(-0.5, 10), minor=True)
    axes.grid(which="minor", color="0.9")
    axes.tick_params(which="minor", length=0)
    axes.set_title(f"True and predicted digits: {wrong:,} of {n:,} wrong", fontsize=14)
    return figure


def training_history(history: Sequence[Mapping[str, float]], kept_epoch: int) -> Figure:
    """Draw losses, validation accuracy and learning rate per epoch; a star marks the kept epoch.

    ``history`` has the figures of ``checkpoint.Epoch`` for at least one epoch.

    >>> keys = ("train_loss", "validation_loss", "validation_accuracy", "learning_rate")
    >>> len(training_history([{"epoch": 1, **dict.fromkeys(keys, 0.5)}], 1).axes)
    3
    """
    keys = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate")
    epoch, train, validation, accuracy, rate = (
        np.array([row[key] for row in history], dtype=np.float64) for key in keys
    )
    accuracy, kept = 100 * accuracy, kept_epoch - 1
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    figure.suptitle(
        f"Training, {len(history)} epochs: epoch {epoch[kept]:g} is kept, with a validation "
        f"loss of {validation[kept]:.4f} and an accuracy of {accuracy[kept]:.2f} %",
        fontsize=14,
    )
    losses, accuracies, rates = figure.subplots(1, 3)
    losses.plot(epoch, train, color=BLUE, marker=".", label="training")
    losses.plot(epoch, validation, color=VERMILION, marker=".", label="validation")
    losses.plot(epoch[kept], validation[kept], **_KEPT)
    losses.set_yscale("log")
    losses.set(title="Loss", ylabel="cross-entropy, nats (log)")
    losses.legend(frameon=False)
    accuracies.plot(epoch, accuracy, color=GREEN, marker=".")
    accuracies.plot(epoch[kept], accuracy[kept], **_KEPT)
    lowest, highest = float(accuracy.min()), float(accuracy.max())
    # A tenth of a point at least: a constant accuracy would get an axis that goes beyond 100 %.
    margin = max(0.1, (highest - lowest) / 20)
    accuracies.set_ylim(max(0.0, lowest - margin), min(100.0, highest + margin))
    accuracies.set(title="Validation accuracy", ylabel="%")
    rates.plot(epoch, rate, color=ORANGE, marker=".")
    rates.set(title="Learning rate")
    for axes in (losses, accuracies, rates):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def speedup_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw ``BenchmarkResult.speedups``: how many times as fast as the baseline a contender is.

    >>> row = {"task": "read", "baseline": "CPU", "contender": "GPU", "speedup": 4.0}
    >>> speedup_chart([row]).axes[0].get_title()
    'Speed-up in 1 tasks: faster in 1'
    """
    values = np.array([float(row["speedup"]) for row in rows])
    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    # On a logarithmic scale half as fast is as far from 1 as twice as fast.
    colours = [BLUE if value >= 1 else VERMILION for value in values]
    axes.barh(range(len(rows)), values - 1, left=1, color=colours)
    for row, value in enumerate(values):
        text = f"  {value:.3g}{TIMES}"
        axes.text(max(1, value), row, text, va="center")
    labels = [f"{row['task']}\n{row['contender']} against {row['baseline']}" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=9)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(0.8 * min(1, values.min()), 1.8 * max(1, values.max()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}{TIMES}")
    axes.set_xlabel(f"times as fast (1{TIMES} = as fast as the baseline)")
    faster = int((values > 1).sum())
    axes.set_title(f"Speed-up in {len(rows)} tasks: faster in {faster}", fontsize=13)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def robustness_figure(report: RobustnessReport) -> Figure:
    """Draw accuracy and coverage of each set of digits, and the decisions on non-digits.

    Accuracies have 95 % Wilson intervals. Non-digits are divided into rejected, reviewed and
    accepted, with the AUROC and the false positive rate of each kind on its bar.

    >>> from inkdigits.calibration.intervals import Estimate
    >>> from inkdigits.evaluation.robustness_report import DigitScores
    >>> share = Estimate(0.5, 0.2, 0.8)
    >>> fog = DigitScores("fog", "corruption", (5,), 4, 2, share, 0.1, 0, 0.0, 0, None, 0.0)
    >>> robustness_figure(RobustnessReport("v1", "novelty", (fog,), ())).get_suptitle()
    'v1: mean of the corruptions 50.00 %'
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    mean = 100 * report.corruption_accuracy
    figure.suptitle(f"{report.model_version}: mean of the corruptions {mean:.2f} %", fontsize=14)
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    rows = range(len(report.digits))
    for row, s in enumerate(report.digits):
        colour, value = _GROUP_COLOURS[s.group], 100 * s.accuracy.value
        errors = [[value - 100 * s.accuracy.low], [100 * s.accuracy.high - value]]
        left.errorbar(value, row, xerr=errors, color=colour, marker="o", capsize=3)
        middle.barh(row, 100 * s.coverage, color=colour)
        text = f"{s.n_wrong_accepted:,} wrong"
        middle.text(100 * s.coverage + 2, row, text, va="center", fontsize=8)
    left.set_yticks(rows, [f"{s.name.replace('_', ' ')} (n = {s.n:,})" for s in report.digits])
    left.set(title="Accuracy", xlabel="%, with 95 % interval")
    middle.set(title="Accepted, and wrong among them", xlabel="%", xlim=(0, 150))
    middle.set(xticks=range(0, 101, 25), yticks=[])
    for axes in (left, middle):
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    _draw_non_digits(right, report)
    return figure


def _draw_non_digits(axes: Axes, report: RobustnessReport) -> None:
    kinds = report.non_digits
    rows, start = range(len(kinds)), np.zeros(len(kinds))
    for name, colour in (("rejected", GREEN), ("reviewed", ORANGE), ("accepted", VERMILION)):
        shares = np.array([100 * getattr(kind, name) for kind in kinds])
        axes.barh(rows, shares, left=start, color=colour, label=name)
        start += shares
    for row, s in enumerate(kinds):
        told = f"AUROC {s.auroc:.4f}, FPR {100 * s.fpr_at_95_tpr:.1f} %"
        axes.text(2, row, told, color="white", fontsize=8, va="center")
    axes.set_yticks(rows, [s.name.replace("_", " ") for s in kinds], fontsize=9)
    axes.set(title="Not digits", xlabel=f"%; digits told from them by {report.score}")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, frameon=False)
