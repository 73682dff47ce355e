"""The coordinates of the marks in charts, which ``templates/charts.html`` draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inkdigits.log.statistics import Bucket, CalibrationBin, Interval

HEIGHT: Final = 180.0
"""Height of the columns' plotting area in pixels; everything else is in per cent of its area."""

SHADES: Final = 6
"""Steps of the confusion matrix's colour: 0 for no count."""


@dataclass(frozen=True, slots=True)
class Column:
    """One hour or day: three parts, each (class, top, height), from the bottom up."""

    x: float
    width: float
    label: str
    parts: tuple[tuple[str, float, float], ...]
    total: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Predictions over time; ``ticks`` are (y, count) of the horizontal lines."""

    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, int], ...]
    height: float = HEIGHT


@dataclass(frozen=True, slots=True)
class Point:
    """A bin of the reliability diagram, with the ends of its interval."""

    x: float
    y: float
    low: float
    high: float
    label: str


def columns(intervals: Sequence[Interval], bucket: Bucket) -> Columns:
    """Return stacked columns of the decisions, at most 120; of more intervals several share one.

    >>> from datetime import UTC, datetime
    >>> hour = Interval(datetime(2026, 1, 5, 8, tzinfo=UTC), accept=3, review=1, reject=0)
    >>> columns([hour], "hour").columns[0].label
    '05 Jan 08:00: 4'
    """
    step = max(1, math.ceil(len(intervals) / 120))
    groups = [intervals[start : start + step] for start in range(0, len(intervals), step)]
    totals = [sum(i.accept + i.review + i.reject for i in group) for group in groups]
    top = _round_up(max(totals, default=0))
    slot = 100 / max(1, len(groups))
    width = min(5.0, slot * 0.72)
    found = []
    for k, (group, total) in enumerate(zip(groups, totals, strict=True)):
        parts: list[tuple[str, float, float]] = []
        base = HEIGHT
        for kind in ("accept", "review", "reject"):
            height = HEIGHT * sum(getattr(i, kind) for i in group) / top
            base -= height
            parts.append((kind, round(base, 2), round(height, 2)))
        form = "%d %b %H:%M" if bucket == "hour" else "%d %b %Y"
        label = f"{group[0].start.strftime(form)}: {total}"
        x = round(slot * k + (slot - width) / 2, 2)
        found.append(Column(x, round(width, 2), label, tuple(parts), total))
    ticks = tuple((round(HEIGHT * (1 - k / 2), 2), top * k // 2) for k in range(3))
    return Columns(tuple(found), ticks)


def reliability(bins: Sequence[CalibrationBin]) -> tuple[Point, ...]:
    """Return accuracy against mean confidence, for the bins that have any.

    >>> reliability([])
    ()
    """
    return tuple(
        Point(
            x=round(100 * b.confidence, 2),
            y=round(100 * (1 - b.accuracy.value), 2),
            low=round(100 * (1 - b.accuracy.low), 2),
            high=round(100 * (1 - b.accuracy.high), 2),
            label=f"confidence {b.confidence:.2f}: {b.accuracy.count} of {b.accuracy.total} right",
        )
        for b in bins
        if b.confidence is not None
        and b.accuracy.value is not None
        and b.accuracy.low is not None
        and b.accuracy.high is not None
    )


@dataclass(frozen=True, slots=True)
class Lines:
    """Curves as the points of polylines, and (y, label) of the horizontal lines."""

    curves: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]


def lines(series: Sequence[Sequence[float]], form: str, *, logarithmic: bool = False) -> Lines:
    """Return curves over equal steps, on one scale; ``form`` formats the labels.

    >>> lines([[1.0, 0.1, 0.01]], "{:g}", logarithmic=True).curves
    ('0.0,0.0 50.0,50.0 100.0,100.0',)
    """
    scaled = [[math.log10(value) if logarithmic else value for value in one] for one in series]
    high, low = max(map(max, scaled)), min(map(min, scaled))
    span = high - low or 1.0
    curves = (
        " ".join(
            f"{round(100 * k / max(1, len(one) - 1), 2)},{round(100 * (high - value) / span, 2)}"
            for k, value in enumerate(one)
        )
        for one in scaled
    )
    at = (high, (high + low) / 2, low)
    labels = (form.format(10**value if logarithmic else value) for value in at)
    return Lines(tuple(curves), tuple(zip((0.0, 50.0, 100.0), labels, strict=True)))


def shades(confusion: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Return a step from 0 to SHADES - 1 for each count, by its share of its row's largest.

    >>> shades([[10, 1, 0]])
    ((5, 1, 0),)
    """
    return tuple(
        tuple(math.ceil((SHADES - 1) * count / max(row)) if count else 0 for count in row)
        for row in confusion
    )


def _round_up(count: int) -> int:
    """Return the next even number with one significant digit, so that half of it is a count."""
    if count <= 2:
        return 2
    step = max(2, int(10 ** int(math.log10(count))))
    return math.ceil(count / step) * step
