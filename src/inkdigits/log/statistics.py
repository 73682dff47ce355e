"""The dashboard's figures: predictions over time, and their accuracy by people's feedback.

The database counts along indexes, and reads no rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

import sqlalchemy as sa

from inkdigits.calibration.intervals import wilson_interval
from inkdigits.decision.policy import Decision
from inkdigits.errors import QueryError
from inkdigits.log.queries import READ, Filters, conditions
from inkdigits.log.record import from_microseconds
from inkdigits.log.schema import predictions
from inkdigits.types import NO_DIGIT_LABEL

MAX_BUCKETS: Final = 10_000
"""The most hours or days in one statistic."""

CALIBRATION_BINS: Final = 10

MAX_MODELS: Final = 8
"""The most models that are compared."""

Bucket: TypeAlias = Literal["hour", "day"]
_BUCKET_US: Final[dict[Bucket, int]] = {"hour": 3_600_000_000, "day": 86_400_000_000}
_KINDS: Final[tuple[Decision, ...]] = get_args(Decision)

_c = predictions.c


@dataclass(frozen=True, slots=True)
class Proportion:
    """``count`` of ``total``, with Wilson's 95 % interval; the rest is None when total is 0."""

    count: int
    total: int
    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, count: int, total: int) -> Proportion:
        """Return the proportion of ``count`` in ``total``, 0 <= count <= total."""
        if total == 0:
            return cls(0, 0, None, None, None)
        return cls(count, total, count / total, *wilson_interval(count, total))


@dataclass(frozen=True, slots=True)
class Interval:
    """The number of predictions of one hour or one day, from ``start`` (UTC) on, by decision."""

    start: datetime
    accept: int
    review: int
    reject: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The predictions with feedback and a confidence in [low, high); the last includes 1."""

    low: float
    high: float
    confidence: float | None  # their mean; None where there are none
    accuracy: Proportion


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one model read: ``share`` is of its readings with a decision, ``accuracy`` as above."""

    model_version: str
    first: datetime
    last: datetime
    total: int
    share: dict[Decision, Proportion]
    accuracy: Proportion


@dataclass(frozen=True, slots=True)
class Statistics:
    """The figures of the dashboard.

    "Corrected" are the predictions with feedback, right or wrong. People choose what they give
    feedback on, so that these are not figures of a random sample.
    """

    total: int
    decisions: dict[Decision, int]
    over_time: tuple[Interval, ...]
    """One for each hour or day from the first to the last, empty ones included."""
    corrected: int
    accuracy: Proportion
    """Of the corrected ones that are digits or numbers and were read as some, as the next three."""
    accuracy_by_decision: dict[Decision, Proportion]
    calibration: tuple[CalibrationBin, ...]
    calibration_error: float | None
    """Expected calibration error (Naeini et al., AAAI 2015), 0 to 1; None without corrected."""
    confusion: tuple[tuple[int, ...], ...]
    """10 rows (true digit) of 10 counts (digit read), of single digits."""
    rejected: Proportion
    """How many of the corrected ones that are no digit were rejected."""
    models: tuple[ModelFigures, ...]
    """Of the last MAX_MODELS, the last first; empty where there is only one."""
    missed: int
    """How many corrected ones are digits for which nothing was read."""


def statistics(connection: sa.Connection, filters: Filters, bucket: Bucket) -> Statistics:
    """Query the figures; QueryError for an unknown bucket, or more than MAX_BUCKETS of them.

    >>> engine = sa.create_engine("sqlite://")
    >>> predictions.metadata.create_all(engine)
    >>> with engine.connect() as connection:
    ...     statistics(connection, Filters(), "day").total
    0
    """
    if bucket not in _BUCKET_US:
        raise QueryError(f"the bucket is {' or '.join(_BUCKET_US)}; not {bucket!r}")
    read = connection.execute(_read_query(filters, bucket)).mappings().all()
    corrected = connection.execute(_corrected_query(filters)).mappings().all()
    return _statistics_of(read, corrected, bucket)


def _read_query(filters: Filters, bucket: Bucket) -> sa.Select[Any]:
    """Query how much was read in each bucket of time, by decision and model: along one index."""
    size = sa.literal_column(str(_BUCKET_US[bucket]), sa.BigInteger)
    keys = ((_c.created_us // size).label("number"), _c.decision, _c.model_version)
    first, last = sa.func.min(_c.created_us), sa.func.max(_c.created_us)
    query = sa.select(*keys, sa.func.count().label("n"), first.label("first"), last.label("last"))
    return query.where(*conditions(filters)).group_by("number", _c.decision, _c.model_version)


def _corrected_query(filters: Filters) -> sa.Select[Any]:
    """Query the number of corrected ones by label, reading, decision, model and bin."""
    edges = ((_c.confidence < (k + 1) / CALIBRATION_BINS, k) for k in range(CALIBRATION_BINS - 1))
    confidence_bin = sa.case(*edges, else_=CALIBRATION_BINS - 1).label("bin")
    keys = (_c.label, READ.label("read"), _c.decision, _c.model_version)
    return (
        sa.select(
            *keys,
            confidence_bin,
            sa.func.count().label("n"),
            sa.func.sum(_c.confidence).label("confidence"),
        )
        .where(_c.label.is_not(None), *conditions(filters))
        .group_by(_c.label, sa.literal_column("read"), _c.decision, _c.model_version)
        .group_by(sa.literal_column("bin"))
    )


def _statistics_of(
    read: Sequence[sa.RowMapping], corrected: Sequence[sa.RowMapping], bucket: Bucket
) -> Statistics:
    no_digits = [row for row in corrected if row["label"] == NO_DIGIT_LABEL]
    labelled = [row for row in corrected if row["label"] != NO_DIGIT_LABEL]
    digits = [row for row in labelled if row["read"] is not None]
    confusion = [[0] * 10 for _ in range(10)]
    for row in digits:
        if len(row["label"]) == len(row["read"]) == 1:
            confusion[int(row["label"])][int(row["read"])] += row["n"]
    bins = [
        _calibration_bin(k, [row for row in digits if row["bin"] == k])
        for k in range(CALIBRATION_BINS)
    ]
    accuracy = _accuracy(digits)
    decisions = _by_decision(read)
    gaps = (
        b.accuracy.total * abs((b.accuracy.value or 0) - b.confidence)
        for b in bins
        if b.confidence is not None
    )
    return Statistics(
        total=sum(decisions.values()),
        decisions=decisions,
        over_time=tuple(_over_time(read, bucket)),
        corrected=sum(row["n"] for row in corrected),
        accuracy=accuracy,
        accuracy_by_decision={
            kind: _accuracy([row for row in digits if row["decision"] == kind]) for kind in _KINDS
        },
        calibration=tuple(bins),
        calibration_error=sum(gaps) / accuracy.total if accuracy.total else None,
        confusion=tuple(tuple(row) for row in confusion),
        rejected=Proportion.of(
            sum(row["n"] for row in no_digits if row["decision"] == "reject"),
            sum(row["n"] for row in no_digits),
        ),
        models=tuple(_models(read, digits)),
        missed=sum(row["n"] for row in labelled if row["read"] is None),
    )


def _by_decision(rows: Iterable[sa.RowMapping]) -> dict[Decision, int]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts[row["decision"]] += row["n"]
    return {kind: counts[kind] for kind in _KINDS}


def _models(
    read: Sequence[sa.RowMapping], digits: Sequence[sa.RowMapping]
) -> Iterator[ModelFigures]:
    of_model: dict[str, list[sa.RowMapping]] = {}
    for row in sorted(read, key=lambda row: row["last"], reverse=True):
        of_model.setdefault(row["model_version"], []).append(row)
    for version, rows in [*of_model.items()][:MAX_MODELS] if len(of_model) > 1 else ():
        counts = _by_decision(rows)
        total = sum(counts.values())
        yield ModelFigures(
            version,
            from_microseconds(min(row["first"] for row in rows)),
            from_microseconds(rows[0]["last"]),
            total,
            {kind: Proportion.of(n, total) for kind, n in counts.items()},
            _accuracy([row for row in digits if row["model_version"] == version]),
        )


def _accuracy(rows: Sequence[sa.RowMapping]) -> Proportion:
    right = sum(row["n"] for row in rows if row["label"] == row["read"])
    return Proportion.of(right, sum(row["n"] for row in rows))


def _calibration_bin(k: int, rows: Sequence[sa.RowMapping]) -> CalibrationBin:
    accuracy = _accuracy(rows)
    mean = sum(r["confidence"] for r in rows) / accuracy.total if accuracy.total else None
    return CalibrationBin(k / CALIBRATION_BINS, (k + 1) / CALIBRATION_BINS, mean, accuracy)


def _over_time(rows: Sequence[sa.RowMapping], bucket: Bucket) -> Iterator[Interval]:
    inside: dict[int, list[sa.RowMapping]] = {}
    for row in rows:
        inside.setdefault(row["number"], []).append(row)
    numbers = range(min(inside), max(inside) + 1) if inside else range(0)
    if len(numbers) > MAX_BUCKETS:
        raise QueryError(
            f"{len(numbers):,} {bucket}s are over {MAX_BUCKETS:,}; "
            "ask for a shorter time or larger buckets"
        )
    step = timedelta(microseconds=_BUCKET_US[bucket])
    for number in numbers:
        start = from_microseconds(0) + number * step
        yield Interval(start, **_by_decision(inside.get(number, ())))
