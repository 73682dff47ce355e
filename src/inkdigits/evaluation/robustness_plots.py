"""Figures of the robustness report, and contact sheets of what it is measured on.

As in ``plots``: results in, a Figure out, nothing drawn on a screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from inkdigits.errors import DataError
from inkdigits.evaluation.plots import BLUE, GREEN, ORANGE, VERMILION
from inkdigits.evaluation.robustness import RobustnessReport

COLOURS = {"clean": GREEN, "corruption": BLUE, "other": ORANGE}


def robustness_figure(report: RobustnessReport) -> Figure:
    """Accuracy and coverage of each set of digits; what became of each kind of non-digit.

    Accuracy has its 95 % Wilson interval. The figures of non-digits are shares that were
    rejected, left to review and accepted, with the AUROC beside each.
    """
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    figure.suptitle(
        f"{report.model_version}: mean of the corruptions {100 * report.corruption_accuracy:.2f} %",
        fontsize=14,
    )
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    rows = range(len(report.digits))
    accuracy = np.array([s.accuracy.value for s in report.digits])
    errors = np.abs(
        np.array([(s.accuracy.low, s.accuracy.high) for s in report.digits]).T - accuracy
    )
    colours = [COLOURS[s.group] for s in report.digits]
    for row, colour in enumerate(colours):
        left.errorbar(
            100 * accuracy[row],
            row,
            xerr=100 * errors[:, row : row + 1],
            color=colour,
            marker="o",
            capsize=3,
        )
    left.set_yticks(rows, [f"{s.name.replace('_', ' ')} (n = {s.n:,})" for s in report.digits])
    left.set(title="Read right", xlabel="%, with 95 % interval", ylim=(-0.6, len(rows) - 0.4))
    left.invert_yaxis()
    middle.barh(rows, [100 * s.coverage for s in report.digits], color=colours)
    middle.set_yticks(rows, ["" for _ in rows])
    middle.set(title="Accepted, and wrong among them", xlabel="%", xlim=(0, 150))
    middle.set(xticks=range(0, 101, 25), ylim=(-0.6, len(rows) - 0.4))
    for row, scores in enumerate(report.digits):
        text = f"{scores.n_wrong_accepted:,} wrong"
        middle.text(100 * scores.coverage + 2, row, text, va="center", fontsize=8)
    middle.invert_yaxis()
    _draw_refusals(right, report)
    for axes in (left, middle):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def _draw_refusals(axes: Axes, report: RobustnessReport) -> None:
    rows = range(len(report.refusals))
    start = np.zeros(len(report.refusals))
    for name, colour in (("rejected", GREEN), ("reviewed", ORANGE), ("accepted", VERMILION)):
        shares = np.array([100 * getattr(r, name) for r in report.refusals])
        axes.barh(rows, shares, left=start, color=colour, label=name)
        start += shares
    axes.set_yticks(
        rows,
        [
            f"{r.name.replace('_', ' ')}\nAUROC {r.auroc:.4f}\nFPR {100 * r.fpr_at_95_tpr:.1f} %"
            for r in report.refusals
        ],
        fontsize=9,
    )
    axes.set(title="Not digits", xlabel=f"%; digits told from them by {report.score}")
    axes.set_xlim(0, 100)
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, frameon=False)


def contact_sheet(
    pictures: Mapping[str, Sequence[npt.NDArray[np.uint8]]], columns: int = 12
) -> Figure:
    """A row of pictures for each name, as they are; larger ones are drawn at the same size.

    Args:
        pictures: (H, W) uint8 pictures by the name of their row.
        columns: how many of each are drawn at most, at least 1.

    Raises:
        DataError: no names, a name without pictures, or ``columns`` below 1.
    """
    if not pictures or not all(len(row) for row in pictures.values()) or columns < 1:
        raise DataError("a contact sheet needs a name, a picture for each, and a column")
    width = min(columns, max(len(row) for row in pictures.values()))
    figure = Figure(figsize=(0.8 * width + 1.6, 0.85 * len(pictures)), layout="constrained")
    panels = figure.subplots(len(pictures), width, squeeze=False)
    for axes_of_row, (name, row) in zip(panels, pictures.items(), strict=True):
        for column, axes in enumerate(axes_of_row):
            if column < len(row):
                axes.imshow(row[column], cmap="gray", vmin=0, vmax=255)
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_color("0.8")
        axes_of_row[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center")
    return figure
