"""From results to figures; with robustness_plots the only drawer with matplotlib.

Every function takes results that were computed elsewhere and returns a Figure; nothing is drawn
on a screen and no global state (pyplot, rcParams) is touched. Colours are Okabe and Ito's, which
stay apart for colour-blind viewers (jfly.uni-koeln.de/color, 2008).
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from inkdigits.calibration.intervals import wilson_interval
from inkdigits.calibration.scores import ReliabilityCurve
from inkdigits.errors import DataError
from inkdigits.model.artifact import write_atomically

if TYPE_CHECKING:
    from inkdigits.evaluation.architecture import Layer
    from inkdigits.model.networks import NetworkName

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
TIMES = "\N{MULTIPLICATION SIGN}"


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG at 150 dots per inch; folders are made, the file appears whole.

    Returns:
        The path written.

    Raises:
        OSError: the folder or the file can't be written.
    """
    target = Path(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, facecolor="white")
    write_atomically(target, buffer.getvalue())
    return target


def reliability_diagram(
    before: ReliabilityCurve,
    after: ReliabilityCurve,
    *,
    titles: tuple[str, str] = ("Before calibration", "After calibration"),
) -> Figure:
    """Accuracy against confidence, before and after, over histograms of the pictures' numbers.

    Points are bins, their bars 95 % Wilson intervals; on the diagonal, confidence is honest.

    Args:
        before: the curve at temperature 1.
        after: the curve at the fitted temperature.
        titles: of the two columns; the ECE is added.
    """
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    figure.suptitle(f"Does the confidence match the accuracy?   n = {before.n:,}", fontsize=14)
    axes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, (curve, title) in enumerate(zip((before, after), titles, strict=True)):
        top: Axes = axes[0, column]
        bottom: Axes = axes[1, column]
        intervals = np.array(
            [
                wilson_interval(round(accuracy * count), int(count))
                for accuracy, count in zip(curve.accuracy, curve.count, strict=True)
            ]
        )
        errors = np.abs(intervals.T - curve.accuracy)
        top.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="honest")
        top.errorbar(
            curve.confidence,
            curve.accuracy,
            yerr=errors,
            color=BLUE,
            ecolor=BLUE,
            marker="o",
            linestyle="none",
            elinewidth=1,
            capsize=3,
            label="bins, 95 % interval",
        )
        top.set(xlim=(0, 1.02), ylim=(-0.02, 1.02))
        top.set_title(f"{title}: ECE {100 * curve.ece:.2f} %")
        top.grid(alpha=0.3)
        bottom.bar(
            curve.lower,
            curve.count,
            width=curve.upper - curve.lower,
            align="edge",
            color=ORANGE,
            edgecolor="white",
        )
        bottom.set_yscale("log")
        bottom.set_ylim(0.7, 2 * curve.n)
        bottom.set_xlabel("confidence of the digit read")
        bottom.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel("share read right")
    axes[1, 0].set_ylabel("pictures (log)")
    axes[0, 0].legend(loc="lower right")
    return figure


def confusion_matrix_figure(matrix: npt.NDArray[np.int64]) -> Figure:
    """The confusion matrix, counts written in; colour shows mistakes only.

    Args:
        matrix: (10, 10) counts, row = true digit, column = digit read.

    Raises:
        DataError: another shape, or no pictures.
    """
    if matrix.shape != (10, 10) or matrix.sum() == 0:
        raise DataError(f"a confusion matrix is (10, 10) and not empty; this is {matrix.shape}")
    n, wrong = int(matrix.sum()), int(matrix.sum() - np.trace(matrix))
    # Hundreds of hits beside single mistakes: one colour scale for both would hide the mistakes.
    mistakes = matrix - np.diag(np.diag(matrix))
    figure = Figure(figsize=(7.5, 7.2), layout="constrained")
    axes = figure.subplots()
    darkest = max(2, int(mistakes.max()))
    axes.imshow(np.ma.masked_equal(mistakes, 0), cmap="Oranges", vmin=0, vmax=darkest)
    for true in range(10):
        for read in range(10):
            count = int(matrix[true, read])
            hit = true == read
            if count == 0 and not hit:
                continue
            dark = not hit and count > 0.6 * darkest
            axes.text(
                read,
                true,
                f"{count:,}",
                ha="center",
                va="center",
                fontsize=10 if hit else 12,
                fontweight="normal" if hit else "bold",
                color="white" if dark else (BLUE if hit else "black"),
            )
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    axes.set_xticks(np.arange(-0.5, 10), minor=True)
    axes.set_yticks(np.arange(-0.5, 10), minor=True)
    axes.grid(which="minor", color="0.9")
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("digit read")
    axes.set_ylabel("true digit")
    axes.set_title(f"What was read as what: {wrong:,} of {n:,} wrong", fontsize=14)
    return figure


def misread_figure(
    inks: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.float64],
    max_items: int = 40,
) -> Figure:
    """The misread digits as the model saw them, the most confident mistake first.

    Args:
        inks: (N, 28, 28) uint8, 255 is ink; every picture of the set, as the title counts them.
        labels: (N,) true digits.
        predicted: (N,) digits read.
        confidence: (N,) confidence of the digit read, 0 to 1.
        max_items: how many to draw at most, at least 1.

    Raises:
        DataError: shapes that don't belong together, or ``max_items`` below 1.
    """
    n = len(inks)
    if inks.shape != (n, 28, 28) or any(a.shape != (n,) for a in (labels, predicted, confidence)):
        raise DataError(
            f"inks must be (N, 28, 28) with N labels, readings and confidences; this is "
            f"{inks.shape}, {labels.shape}, {predicted.shape}, {confidence.shape}"
        )
    if max_items < 1:
        raise DataError(f"max_items is {max_items}; at least 1 is needed")
    wrong = np.flatnonzero(labels != predicted)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:max_items]
    columns = min(10, max(5, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.15 * columns, 1.55 * rows + 0.7), layout="constrained")
    title = f"Misread: {len(wrong):,} of {n:,}"
    if len(shown) < len(wrong):
        title += f", the {len(shown)} most confident"
    figure.suptitle(title, fontsize=13)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, index in zip(panels, shown, strict=False):
        _draw_ink(panel, inks[index], frame="0.8")
        panel.set_title(
            f"{labels[index]} read as {predicted[index]}\n{100 * confidence[index]:.1f} %",
            fontsize=9,
        )
    return figure


def training_history(history: Sequence[Mapping[str, float]], kept_epoch: int) -> Figure:
    """Losses, validation accuracy and learning rate, epoch by epoch; a star at the kept one.

    Args:
        history: one mapping an epoch, with the keys epoch, train_loss, validation_loss,
            validation_accuracy (0 to 1) and learning_rate.
        kept_epoch: whose weights were kept, counted from 1.

    Raises:
        DataError: no epochs, a key is missing, or the kept epoch is none of them.
    """
    if not history:
        raise DataError("the training history is empty")
    keys = ("epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate")
    missing = [key for key in keys if any(key not in row for row in history)]
    if missing:
        raise DataError(f"the training history lacks {', '.join(missing)}")
    epoch, train, validation, accuracy, rate = (
        np.array([row[key] for row in history], dtype=np.float64) for key in keys
    )
    if not 1 <= kept_epoch <= len(history):
        raise DataError(f"epoch {kept_epoch} was kept, of {len(history)}")
    kept = kept_epoch - 1
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    figure.suptitle(
        f"Training, {len(history)} epochs: epoch {epoch[kept]:g} is kept, with a validation "
        f"loss of {validation[kept]:.4f} and an accuracy of {100 * accuracy[kept]:.2f} %",
        fontsize=14,
    )
    losses, accuracies, rates = figure.subplots(1, 3)
    losses.plot(epoch, train, color=BLUE, marker=".", label="training")
    losses.plot(epoch, validation, color=VERMILION, marker=".", label="validation")
    losses.plot(epoch[kept], validation[kept], color="black", marker="*", markersize=11)
    losses.set_yscale("log")
    losses.set(title="Loss", ylabel="cross-entropy, nats (log)")
    losses.legend(frameon=False)
    accuracies.plot(epoch, 100 * accuracy, color=GREEN, marker=".")
    accuracies.plot(
        epoch[kept], 100 * accuracy[kept], color="black", marker="*", markersize=11, clip_on=False
    )
    lowest, highest = 100 * float(accuracy.min()), 100 * float(accuracy.max())
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


def augmentation_preview(
    originals: npt.NDArray[np.uint8], augmented: npt.NDArray[np.uint8]
) -> Figure:
    """A contact sheet: each original at the left, what augmentation made of it beside it.

    Args:
        originals: (N, 28, 28) uint8, 255 is ink, N at least 1.
        augmented: (N, K, 28, 28) uint8, K at least 1.

    Raises:
        DataError: shapes that don't belong together.
    """
    n, k = augmented.shape[:2] if augmented.ndim == 4 else (0, 0)
    if n < 1 or k < 1 or augmented.shape[2:] != (28, 28) or originals.shape != (n, 28, 28):
        raise DataError(
            "originals must be (N, 28, 28) and augmented (N, K, 28, 28), neither empty; these are "
            f"{originals.shape} and {augmented.shape}"
        )
    figure = Figure(figsize=(0.85 * (k + 1), 0.85 * n + 0.8), layout="constrained")
    figure.suptitle(f"Augmentation: {n} digits, {k} variants each", fontsize=13)
    panels = figure.subplots(n, k + 1, squeeze=False)
    for row in range(n):
        for column in range(k + 1):
            ink = originals[row] if column == 0 else augmented[row, column - 1]
            panel: Axes = panels[row, column]
            _draw_ink(panel, ink, frame=BLUE if column == 0 else "0.8")
    panels[0, 0].set_title("original", fontsize=10, color=BLUE)
    return figure


def contact_sheet(inks: npt.NDArray[np.uint8], title: str, columns: int = 24) -> Figure:
    """Many inks side by side.

    Args:
        inks: (N, 28, 28) uint8, 255 is ink, N at least 1.
        title: what they are.
        columns: how many in a row.

    Raises:
        DataError: another shape, or none.
    """
    if inks.ndim != 3 or inks.shape[1:] != (28, 28) or not len(inks):
        raise DataError(f"inks must be (N, 28, 28) with N at least 1; this is {inks.shape}")
    rows = -(-len(inks) // columns)
    cells = np.zeros((rows * columns, 30, 30), dtype=np.uint8)
    cells[: len(inks), 1:-1, 1:-1] = inks
    sheet = cells.reshape(rows, columns, 30, 30).swapaxes(1, 2).reshape(rows * 30, columns * 30)
    figure = Figure(figsize=(0.5 * columns, 0.5 * rows + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=13)
    axes = figure.subplots()
    axes.imshow(255 - sheet, cmap="gray", vmin=0, vmax=255)
    axes.set_axis_off()
    return figure


def _draw_ink(axes: Axes, ink: npt.NDArray[np.uint8], frame: str) -> None:
    """Black ink on white, as on paper, in a thin frame."""
    axes.imshow(255 - ink, cmap="gray", vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(frame)


def speedup_chart(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """How many times faster the contender is than the baseline, task by task.

    Args:
        rows: mappings with the keys task, baseline, contender (str) and speedup (baseline's time
            divided by the contender's, above 0); drawn in their order from the top.

    Raises:
        DataError: no rows, or a speed-up that isn't a finite number above 0.
    """
    if not rows:
        raise DataError("there are no speed-ups to draw")
    values = np.array([float(row["speedup"]) for row in rows])
    if not (np.isfinite(values) & (values > 0)).all():
        raise DataError(f"speed-ups must be finite and above 0; these are {values.tolist()}")
    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    # Bars start at 1 where the scale is logarithmic (it has no 0): shorter is slower either way.
    logarithmic = bool(values.max() > 10 * values.min())
    start = 1.0 if logarithmic else 0.0
    colours = [BLUE if value >= 1 else VERMILION for value in values]
    axes.barh(range(len(rows)), values - start, left=start, color=colours)
    for row, value in enumerate(values):
        axes.annotate(
            f"{value:.3g}{TIMES}",
            xy=(max(1, value), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(
        range(len(rows)),
        [f"{row['task']}\n{row['contender']} against {row['baseline']}" for row in rows],
        fontsize=9,
    )
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1.2)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(min(0.8, 0.8 * values.min()), 1.8 * max(1, values.max()))
    else:
        axes.set_xlim(0, 1.15 * max(1, values.max()))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}{TIMES}")
    axes.set_xlabel(f"times as fast (1{TIMES} = as fast as the baseline)")
    axes.set_title(
        f"Speed-up in {len(rows)} tasks: faster in {int((values > 1).sum())}", fontsize=13
    )
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def architecture_diagram(network: NetworkName) -> Figure:
    """A network as blocks of feature maps, with the layers between and their parameters.

    Read from a forward pass of the real network (``architecture.trace_layers``); needs torch.
    """
    from inkdigits.evaluation.architecture import trace_layers

    layers = trace_layers(network)
    # One block for each shape that a picture takes on; layers that keep the shape join its block.
    blocks: list[tuple[tuple[int, ...], list[Layer]]] = [((1, 28, 28), [])]
    for layer in layers:
        if layer.output_shape != blocks[-1][0]:
            blocks.append((layer.output_shape, []))
        blocks[-1][1].append(layer)
    total = sum(layer.parameters for layer in layers)

    texts = [
        "\n".join(_describe(layer) for layer in members) or "standardised ink"
        for _, members in blocks
    ]
    # Inches: what a unit of the vertical axis takes, a line of 10 points (0.21), and a character of
    # it at most (0.09).
    unit = 1.85
    depth = 0.21 * max(text.count("\n") + 1 for text in texts) / unit
    width = max(unit, 0.09 * max(len(line) for text in texts for line in text.splitlines()))
    low, high = -0.35 - depth, 1.15
    figure = Figure(figsize=(width * len(blocks), unit * (high - low) + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(f"{network}: {total:,} parameters", fontsize=15)
    axes.set_axis_off()
    axes.set(xlim=(-0.55, len(blocks) - 0.4), ylim=(low, high))
    for x, ((shape, _), text) in enumerate(zip(blocks, texts, strict=True)):
        _draw_block(axes, x, shape, unit / width)
        size = f" {TIMES} ".join(str(side) for side in shape)
        axes.text(x, 1.0, size, ha="center", fontsize=12, fontweight="bold")
        if x > 0:
            axes.annotate(
                "",
                xy=(x - 0.36, 0.4),
                xytext=(x - 0.58, 0.4),
                arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 1.5},
            )
        axes.text(x, -0.3, text, ha="center", va="top", fontsize=10, linespacing=1.5)
    return figure


def _describe(layer: Layer) -> str:
    plain = layer.name.rpartition(".")[2] == layer.kind.lower()
    text = layer.kind if plain else f"{layer.name}: {layer.kind}"
    return f"{text}\n({layer.parameters:,} parameters)" if layer.parameters else text


def _draw_block(axes: Axes, x: float, shape: tuple[int, ...], aspect: float) -> None:
    """A stack of sheets for feature maps (C, H, W), a bar for a vector; sides to scale by kind.

    ``aspect`` is a unit's height in inches by its width.
    """
    if len(shape) == 1:
        height = 0.12 * math.log2(shape[0]) / 2
        axes.add_patch(Rectangle((x - 0.04, 0.4 - height / 2), 0.08, height, color=ORANGE))
        return
    sheets = 1 + math.ceil(math.log2(shape[0]))
    side = 0.5 * shape[1] / 28
    for sheet in reversed(range(sheets)):
        shift = 0.025 * (sheet - (sheets - 1) / 2)
        corner = (x + aspect * (shift - side / 2), 0.4 + shift - side / 2)
        axes.add_patch(Rectangle(corner, aspect * side, side, facecolor=BLUE, edgecolor="white"))
