"""The dashboard's figures: predictions over time, and their accuracy by people's feedback.

The database counts, so that their cost hardly grows with the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypeAlias, get_args

import sqlalchemy as sa

from inkdigits.calibration.intervals import wilson_interval
from inkdigits.decision.policy import Decision
from inkdigits.errors import QueryError
from inkdigits.log.queries import READ, Filters, conditions
from inkdigits.log.record import ANYONE, from_microseconds
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
    """The predictions with feedback and a confidence in [low, high); the last includes 1.

    ``confidence`` is their mean confidence, None where there are none.
    """

    low: float
    high: float
    confidence: float | None
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
    """Query the figures.

    >>> engine = sa.create_engine("sqlite://")
    >>> predictions.metadata.create_all(engine)
    >>> with engine.connect() as connection:
    ...     statistics(connection, Filters(), "day").total
    0

    Raises:
        QueryError: an unknown bucket, or more than MAX_BUCKETS of them.
    """
    if bucket not in _BUCKET_US:
        raise QueryError(f"the bucket is one of {tuple(_BUCKET_US)}; not {bucket!r}")
    first_us, last_us = connection.execute(_span_query(filters)).one()
    numbers = _numbers(first_us, last_us, bucket)
    over_time: Sequence[sa.RowMapping] = ()
    if numbers:
        over_time = connection.execute(_over_time_query(filters, bucket, numbers)).mappings().all()
    corrected = connection.execute(_corrected_query(filters)).mappings().all()
    models = _models_read(connection, filters)
    return _statistics_of(_intervals(over_time, numbers, bucket), corrected, models)


def _span_query(filters: Filters) -> sa.Select[Any]:
    """Query the first and the last time, each from an end of an index."""

    def end(order: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        query = sa.select(_c.created_us).where(*conditions(filters))
        return query.order_by(order).limit(1).scalar_subquery()

    return sa.select(end(_c.created_us.asc()), end(_c.created_us.desc()))


def _over_time_query(filters: Filters, bucket: Bucket, numbers: range) -> sa.Select[Any]:
    """Query the number ``n`` of each decision in each bucket of time, ``number`` since 1970."""
    size = sa.literal_column(str(_BUCKET_US[bucket]), sa.BigInteger)
    if filters.owner is not ANYONE:
        # One browser has few predictions: its index finds them, and they are sorted into groups.
        number = (_c.created_us // size).label("number")
        grouped = sa.select(number, _c.decision, sa.func.count().label("n"))
        found = grouped.where(*conditions(filters))
        return found.group_by(sa.literal_column("number"), _c.decision)
    # All browsers have many: counting each group along an index is several times as fast as
    # sorting them into groups (13 ms against 64 ms for 100,000 in SQLite 3.40).
    buckets = sa.select(sa.literal(numbers[0], sa.BigInteger).label("number")).cte(recursive=True)
    following = (buckets.c.number + 1).label("number")
    buckets = buckets.union_all(sa.select(following).where(buckets.c.number < numbers[-1]))
    kinds = sa.union_all(*(sa.select(sa.literal(k).label("decision")) for k in _KINDS)).subquery()
    count = sa.select(sa.func.count()).where(
        _c.decision == kinds.c.decision,
        _c.created_us >= buckets.c.number * size,
        _c.created_us < (buckets.c.number + 1) * size,
        *conditions(filters),
    )
    n = count.correlate(buckets, kinds).scalar_subquery().label("n")
    return sa.select(buckets.c.number, kinds.c.decision, n).join_from(
        buckets, kinds, sa.literal(value=True)
    )


def _models_read(connection: sa.Connection, filters: Filters) -> dict[str, Sequence[int]]:
    """Return of each model how much was read with each decision, and when first and last.

    Passing over an index once per model takes less than sorting all of it into groups. Without two
    models there is nothing to compare.
    """
    wanted = conditions(filters)
    versions: list[str] = []
    while len(versions) < MAX_MODELS:
        newest = sa.select(_c.model_version).order_by(_c.created_us.desc(), _c.id.desc()).limit(1)
        others = _c.model_version.not_in(versions)
        found = connection.scalar(newest.where(*wanted, others))
        if found is None:
            break
        versions.append(found)
    figures: dict[str, Sequence[int]] = {}
    for version in versions if len(versions) > 1 else []:
        counts = [sa.func.sum(sa.case((_c.decision == kind, 1), else_=0)) for kind in _KINDS]
        query = sa.select(*counts, sa.func.min(_c.created_us), sa.func.max(_c.created_us))
        row = connection.execute(query.where(*wanted, _c.model_version == version)).one()
        figures[version] = [int(value) for value in row]
    return figures


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
    over_time: tuple[Interval, ...],
    corrected: Sequence[sa.RowMapping],
    models: dict[str, Sequence[int]],
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
    decisions = {kind: sum(getattr(i, kind) for i in over_time) for kind in _KINDS}
    gaps = (
        b.accuracy.total * abs((b.accuracy.value or 0) - b.confidence)
        for b in bins
        if b.confidence is not None
    )
    return Statistics(
        total=sum(decisions.values()),
        decisions=decisions,
        over_time=over_time,
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
        models=tuple(_models(models, digits)),
        missed=sum(row["n"] for row in labelled if row["read"] is None),
    )


def _models(
    models: dict[str, Sequence[int]], digits: Sequence[sa.RowMapping]
) -> Iterator[ModelFigures]:
    for version, (*counts, first, last) in models.items():
        total = sum(counts)
        yield ModelFigures(
            version,
            from_microseconds(first),
            from_microseconds(last),
            total,
            {kind: Proportion.of(n, total) for kind, n in zip(_KINDS, counts, strict=True)},
            _accuracy([row for row in digits if row["model_version"] == version]),
        )


def _accuracy(rows: Sequence[sa.RowMapping]) -> Proportion:
    right = sum(row["n"] for row in rows if row["label"] == row["read"])
    return Proportion.of(right, sum(row["n"] for row in rows))


def _calibration_bin(k: int, rows: Sequence[sa.RowMapping]) -> CalibrationBin:
    accuracy = _accuracy(rows)
    mean = sum(r["confidence"] for r in rows) / accuracy.total if accuracy.total else None
    return CalibrationBin(k / CALIBRATION_BINS, (k + 1) / CALIBRATION_BINS, mean, accuracy)


def _numbers(first_us: int | None, last_us: int | None, bucket: Bucket) -> range:
    if first_us is None or last_us is None:
        return range(0)
    first, last = first_us // _BUCKET_US[bucket], last_us // _BUCKET_US[bucket]
    if last - first >= MAX_BUCKETS:
        raise QueryError(
            f"{last - first + 1:,} {bucket}s are over {MAX_BUCKETS:,}; "
            "ask for a shorter time or larger buckets"
        )
    return range(first, last + 1)


def _intervals(
    rows: Sequence[sa.RowMapping], numbers: range, bucket: Bucket
) -> tuple[Interval, ...]:
    counts: dict[tuple[int, str], int] = {(r["number"], r["decision"]): r["n"] for r in rows}
    step = timedelta(microseconds=_BUCKET_US[bucket])
    return tuple(
        Interval(
            from_microseconds(0) + number * step,
            *(counts.get((number, kind), 0) for kind in _KINDS),
        )
        for number in numbers
    )
