"""What charts draw, which ``templates/charts.html`` turns into SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

from inkdigits.log.statistics import (
    CALIBRATION_BINS,
    Bucket,
    CalibrationBin,
    Interval,
    Proportion,
)
from inkdigits.types import Json

SHADES: Final = 6
"""Steps of the confusion matrix's colour: 0 for no count."""

Bars: TypeAlias = tuple[list[tuple[str, dict[str, int]]], int]
"""(label, number of each decision) per column, and the top of the scale."""

Curves: TypeAlias = tuple[list[str], list[tuple[float, str]]]
"""The points of polylines, and (y, label) of the horizontal lines."""

_KINDS: Final = ("accept", "review", "reject")


def columns(intervals: Sequence[Interval], bucket: Bucket) -> Bars:
    """Return at most 120 columns of decisions; of more intervals several share one.

    >>> from datetime import UTC, datetime
    >>> columns([Interval(datetime(2026, 1, 5, 8, tzinfo=UTC), 3, 1, 0)], "hour")
    ([('05 Jan 08:00', {'accept': 3, 'review': 1, 'reject': 0})], 4)
    """
    step = max(1, math.ceil(len(intervals) / 120))
    form = "%d %b %H:%M" if bucket == "hour" else "%d %b %Y"
    found = []
    for start in range(0, len(intervals), step):
        group = intervals[start : start + step]
        counts = {kind: sum(getattr(i, kind) for i in group) for kind in _KINDS}
        found.append((group[0].start.strftime(form), counts))
    return found, _round_up(max((sum(counts.values()) for _, counts in found), default=0))


def lines(series: Sequence[Sequence[float]], form: str, *, logarithmic: bool = False) -> Curves:
    """Return curves over equal steps, on one scale of 0 to 100; ``form`` formats the labels.

    >>> lines([[1.0, 0.1, 0.01]], "{:g}", logarithmic=True)[0]
    ['0.0,0.0 50.0,50.0 100.0,100.0']
    """
    scaled = [[math.log10(value) if logarithmic else value for value in one] for one in series]
    high, low = max(map(max, scaled)), min(map(min, scaled))
    span = high - low or 1.0
    curves = [
        " ".join(
            f"{round(100 * k / max(1, len(one) - 1), 2)},{round(100 * (high - value) / span, 2)}"
            for k, value in enumerate(one)
        )
        for one in scaled
    ]
    ticks = zip((0.0, 50.0, 100.0), (high, (high + low) / 2, low), strict=True)
    return curves, [(y, form.format(10**value if logarithmic else value)) for y, value in ticks]


def shades(confusion: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return a step from 0 to SHADES - 1 for each count, by its share of its row's largest.

    >>> shades([[10, 1, 0]])
    [[5, 1, 0]]
    """
    return [
        [math.ceil((SHADES - 1) * count / max(row)) if count else 0 for count in row]
        for row in confusion
    ]


def reliability(sets: Sequence[Json]) -> dict[str, list[CalibrationBin]]:
    """Return the bins of each group of a robustness report's sets, pooled.

    >>> reliability([{"group": "clean", "reliability": [[0.9, 2, 4]]}])["clean"][0].accuracy.value
    0.5
    """
    pooled: dict[tuple[str, int], list[tuple[float, int, int]]] = {}
    for one in sets:
        for confidence, right, n in one.get("reliability", ()):
            place = one["group"], min(int(CALIBRATION_BINS * confidence), CALIBRATION_BINS - 1)
            pooled.setdefault(place, []).append((confidence * n, right, n))
    found: dict[str, list[CalibrationBin]] = {}
    for (group, k), parts in sorted(pooled.items()):
        weighted, right, n = (sum(part) for part in zip(*parts, strict=True))
        low, high = k / CALIBRATION_BINS, (k + 1) / CALIBRATION_BINS
        made = CalibrationBin(low, high, weighted / n, Proportion.of(int(right), int(n)))
        found.setdefault(group, []).append(made)
    return found


def _round_up(count: int) -> int:
    """Return the next even number with one significant digit, so that half of it is a count."""
    if count <= 2:
        return 2
    step = max(2, int(10 ** int(math.log10(count))))
    return math.ceil(count / step) * step
