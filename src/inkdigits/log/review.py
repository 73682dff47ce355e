"""The review queue: what people are to label, what each of them said, and how well they agree.

In the queue are the rejected and the unsure readings, a random share of the accepted ones, and
those where a second model reads something else. A share of the queue is for two people.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from inkdigits.decision.risk import clopper_pearson_upper
from inkdigits.errors import OutboxError, RecordNotFoundError
from inkdigits.log.database import Database
from inkdigits.log.outbox import Outbox
from inkdigits.log.queries import READ, WITHOUT_PICTURE, named, was_right
from inkdigits.log.record import (
    ANYONE,
    Owner,
    Record,
    Row,
    Shares,
    check_key,
    check_label,
    from_row,
    is_id,
    to_microseconds,
)
from inkdigits.log.schema import labels, predictions
from inkdigits.log.writer import Writer
from inkdigits.types import Json

REVIEWER: Final = "review:"
"""How the names of reviewers begin, among those who give labels."""

Change: TypeAlias = Callable[[sa.Connection, Row], Row]
"""Changes other tables, and returns the columns of a prediction's row to change."""

FEEDBACK: Final = ("label", "feedback_us", "feedback_by")
"""The columns of a prediction's row that feedback changes."""

_MAX_ITEMS: Final = 100

_c, _l = predictions.c, labels.c
logger = logging.getLogger(__name__)


def _is_review(giver: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return giver.startswith(REVIEWER, autoescape=True)


_BY_REVIEWER: Final = _is_review(_l.reviewer)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two reviewers give the same label to the same picture."""

    reviewers: tuple[str, str]
    pictures: int
    same: int
    kappa: float | None  # Cohen's; None where chance alone would always agree


@dataclass(frozen=True, slots=True)
class Progress:
    """What is left for a reviewer, by why it is queued, and what was labelled by whom."""

    due: dict[str, int]
    labelled: dict[str, tuple[int, int]]  # how many pictures, and how many were read as labelled
    agreements: tuple[Agreement, ...]

    @property
    def left(self) -> int:
        """How many pictures are left for this reviewer."""
        return sum(self.due.values())


@dataclass(frozen=True, slots=True)
class Audit:
    """The random audit of what was accepted: how often it is wrong, with one-sided 95 % bounds."""

    labelled: int
    wrong: int
    waiting: int
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, labelled: int, wrong: int, waiting: int) -> Audit:
        """Return the audit of so many labelled pictures, with the bounds of Clopper and Pearson."""
        if labelled == 0:
            return cls(0, 0, waiting)
        low = 1 - clopper_pearson_upper(labelled - wrong, labelled)
        return cls(labelled, wrong, waiting, low, clopper_pearson_upper(wrong, labelled))

    def breaks(self, risk: float) -> bool:
        """Return whether more are wrong than the stated risk, beyond the doubt of chance."""
        return self.low > risk


def _cohen_kappa(pairs: Mapping[tuple[str, str], int]) -> float | None:
    """Return Cohen's kappa, -1 to 1, of how often two people gave two labels; None if undefined.

    J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological
    Measurement 20, 1960.
    """
    total = sum(pairs.values())
    first: Counter[str] = Counter()
    second: Counter[str] = Counter()
    for (one, other), count in pairs.items():
        first[one] += count
        second[other] += count
    by_chance = sum(first[label] * second[label] for label in first)
    if by_chance == total * total:
        return None
    return (total * _same(pairs) - by_chance) / (total * total - by_chance)


def _same(pairs: Mapping[tuple[str, str], int]) -> int:
    return sum(count for (one, other), count in pairs.items() if one == other)


class Reviews:
    """The queue of a store; each call raises StoreUnavailableError as the store's do.

    A reviewer is a name, as `check_key` allows. Who gave two different labels decides again later.
    """

    def __init__(self, writer: Writer, database: Database, outbox: Outbox, shares: Shares) -> None:
        self._writer = writer
        self._database = database
        self._outbox = outbox
        self.shares = shares

    def next(
        self, reviewer: str, *, why: str | None = None, after: str | None = None, limit: int = 20
    ) -> list[tuple[Record, bool]]:
        """Return what a reviewer has not labelled, the least sure first and the audit last.

        Beside each record is whether its picture was kept. The audit is in the order of its ids, so
        that what is labelled first is not a choice. ``why`` narrows it to what is queued for that,
        and ``after`` to what follows the record of that id, which may have been labelled since.
        """
        rank = sa.case((_c.queued == "audit", 2.0), else_=_c.confidence)
        wanted = self._due(reviewer)
        if why is not None:
            wanted.append(_c.queued == why)

        def ask(connection: sa.Connection) -> list[tuple[Record, bool]]:
            if after is not None and is_id(after):
                last = connection.scalar(sa.select(rank).where(_c.id == after))
                if last is not None:
                    wanted.append(sa.tuple_(rank, _c.id) > sa.tuple_(sa.literal(last), after))
            found = sa.select(_c.id).where(*wanted).order_by(rank, _c.id)
            ids = connection.scalars(found.limit(max(1, min(limit, _MAX_ITEMS)))).all()
            query = sa.select(*WITHOUT_PICTURE, _c.picture.is_not(None).label("has_picture"))
            rows = connection.execute(query.where(_c.id.in_(ids)).order_by(rank, _c.id)).mappings()
            return [(from_row(row), bool(row["has_picture"])) for row in rows]

        return self._writer.read(ask)

    def give(self, record_id: str, reviewer: str, label: str) -> Record:
        """Return a record with a reviewer's label in place of his former one."""
        giver = REVIEWER + check_key(reviewer, "the reviewer")
        value = {"label": check_label(label), "labelled_us": to_microseconds(datetime.now(UTC))}

        def give(connection: sa.Connection, row: Row) -> None:
            _write_label(connection, row["id"], giver, value)

        return self._review(record_id, give)

    def undo(self, record_id: str, reviewer: str) -> Record:
        """Return a record without a reviewer's label; what was said before holds again."""

        def undo(connection: sa.Connection, row: Row) -> None:
            own = (_l.prediction_id == row["id"], _l.reviewer == REVIEWER + reviewer)
            connection.execute(sa.delete(labels).where(*own))

        return self._review(record_id, undo)

    def _review(self, record_id: str, say: Callable[[sa.Connection, Row], None]) -> Record:
        def change(connection: sa.Connection, row: Row) -> Row:
            if not _is_reviewed(row):
                _keep_feedback(connection, row["id"], row)
            say(connection, row)
            return self._settle(connection, row)

        return self._change(record_id, change)

    def feedback(self, record_id: str, said: Row, owner: Owner) -> Record:
        """Return a record with what its user says, or no more says, as `Store.give_feedback`."""

        def take(connection: sa.Connection, row: Row) -> Row:
            return _take_feedback(connection, row, said)

        return self._change(record_id, take, owner, waiting=lambda _: said)

    def differ(self, record_id: str, shadow: Json) -> None:
        """Note what a second model read in a record, and put it into the queue."""

        def note(row: Row) -> Row:
            return self._noted(row, shadow)

        with suppress(RecordNotFoundError):  # it has been deleted meanwhile
            self._change(record_id, lambda _, row: note(row), waiting=note)

    def take_over(self, rows: Sequence[Row]) -> None:
        """Give what has changed rows in the outbox to those in the database, in its thread."""
        if not rows:
            return
        with self._database.transaction(writes=True) as connection:
            for row in rows:
                _change_row(connection, [_c.id == row["id"]], partial(self._taken_over, row))

    def progress(self, reviewer: str) -> Progress:
        """Return what is left for a reviewer, and how well reviewers, and the model, agree."""
        due = sa.select(_c.queued, sa.func.count()).where(*self._due(reviewer))
        same = sa.func.sum(sa.cast(was_right(_l.label), sa.Integer))
        counts = sa.select(_l.reviewer, sa.func.count(), same).join_from(labels, predictions)
        one, other = labels.alias(), labels.alias()
        pairs = (
            sa.select(one.c.reviewer, other.c.reviewer, one.c.label, other.c.label, sa.func.count())
            .join_from(one, other, one.c.prediction_id == other.c.prediction_id)
            .where(one.c.reviewer < other.c.reviewer)
            .where(_is_review(one.c.reviewer), _is_review(other.c.reviewer))
            .group_by(one.c.reviewer, other.c.reviewer, one.c.label, other.c.label)
            .order_by(one.c.reviewer, other.c.reviewer)
        )

        def ask(connection: sa.Connection) -> Progress:
            labelled = connection.execute(counts.where(_BY_REVIEWER).group_by(_l.reviewer)).all()
            agreed: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
            for *names, label, others, count in connection.execute(pairs):
                first, second = (name.removeprefix(REVIEWER) for name in names)
                agreed.setdefault((first, second), {})[label, others] = count
            return Progress(
                due={row[0]: row[1] for row in connection.execute(due.group_by(_c.queued))},
                labelled={name.removeprefix(REVIEWER): (n, same) for name, n, same in labelled},
                agreements=tuple(
                    Agreement(names, sum(pairs.values()), _same(pairs), _cohen_kappa(pairs))
                    for names, pairs in agreed.items()
                ),
            )

        return self._writer.read(ask)

    def audit(self, model_version: str) -> Audit:
        """Return what the random audit says of the readings of one model."""
        audited = (_c.queued == "audit", _c.model_version == model_version)
        said = sa.select(_c.id, READ.label("read"), _l.label).join_from(labels, predictions)
        said = said.where(*audited, _BY_REVIEWER).order_by(_l.prediction_id, _l.labelled_us)
        waiting = sa.select(sa.func.count()).where(*audited, _c.reviews_due.is_not(None))

        def ask(connection: sa.Connection) -> Audit:
            rows = connection.execute(said).all()
            wrong = labelled = 0
            for (_, read), found in groupby(rows, key=lambda row: (row.id, row.read)):
                labelled += 1
                wrong += _settled([row.label for row in found]) != read
            return Audit.of(labelled, wrong, connection.scalar(waiting) or 0)

        return self._writer.read(ask)

    def _due(self, reviewer: str) -> list[sa.ColumnElement[bool]]:
        own = sa.exists().where(_l.prediction_id == _c.id, _l.reviewer == REVIEWER + reviewer)
        return [_c.reviews_due.is_not(None), ~own]

    def _change(
        self,
        record_id: str,
        change: Change,
        owner: Owner = ANYONE,
        *,
        waiting: Callable[[Row], Row] | None = None,
    ) -> Record:
        """Change a record's row in the outbox by ``waiting``, or else in the database."""
        its = named(record_id, owner)
        row = None if waiting is None else self._change_waiting(record_id, owner, waiting)
        if row is not None:
            return from_row(row)

        def run() -> Record:
            with self._database.transaction(writes=True) as connection:
                row = _change_row(connection, its, change)
            if row is None:
                raise RecordNotFoundError(f"There is no prediction {record_id!r}.")
            return from_row(row)

        return self._writer.run(run)

    def _taken_over(self, row: Row, connection: sa.Connection, stored: Row) -> Row:
        said = _take_feedback(connection, stored, {name: row[name] for name in FEEDBACK})
        return {**said, **self._noted(stored, row["shadow"])} if row["shadow"] else said

    def _change_waiting(
        self, record_id: str, owner: Owner, values_of: Callable[[Row], Row]
    ) -> Row | None:
        try:
            row = self._outbox.change(record_id, owner, values_of)
        except OutboxError as error:
            logger.warning("only the database is asked for a prediction: %s", error)
            return None
        if row is not None:
            self._writer.wake()
        return row

    def _noted(self, row: Row, shadow: Json) -> Row:
        """Return the columns of a record that a second model's reading changes."""
        if row["queued"] is not None:
            return {"shadow": shadow}
        due = self.shares.needed(row["ink_sha256"])
        return {"shadow": shadow, "queued": "differs", "reviews_due": due}

    def _settle(self, connection: sa.Connection, row: Row) -> dict[str, Any]:
        """Return the columns of a record that follow from the labels that it has."""
        query = sa.select(_l.reviewer, _l.label, _l.labelled_us).order_by(_l.labelled_us)
        said = connection.execute(query.where(_l.prediction_id == row["id"])).all()
        reviews = [one for one in said if one.reviewer.startswith(REVIEWER)]
        values: dict[str, Any] = {"label": None, "feedback_us": None, "feedback_by": None}
        if said:
            counted = reviews or said[-1:]
            label = _settled([one.label for one in counted])
            last = [one for one in counted if one.label == label][-1]
            values = {"label": label, "feedback_us": last[2], "feedback_by": last[0]}
        if row["queued"] is not None:
            counts = Counter(one.label for one in reviews).most_common(2)
            is_tie = len(counts) == 2 and counts[0][1] == counts[1][1]
            due = max(self.shares.needed(row["ink_sha256"]) - len(reviews), int(is_tie))
            values["reviews_due"] = due or None
        return values


def _settled(said: Sequence[str]) -> str:
    """Return what most say, or of as many the last; ``said`` is in the order of time."""
    return Counter(reversed(said)).most_common(1)[0][0]  # of as many, the first that it has met


def _change_row(
    connection: sa.Connection, its: list[sa.ColumnElement[bool]], change: Change
) -> Row | None:
    """Change a prediction's row, which is locked meanwhile, and return it; None if it is gone."""
    query = sa.select(predictions).where(*its).with_for_update()
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    values = change(connection, row)
    if values:
        connection.execute(sa.update(predictions).where(*its).values(values))
    return {**row, **values}


def _take_feedback(connection: sa.Connection, row: Row, said: Row) -> Row:
    """Return the columns that a user's feedback changes: none of what reviewers have labelled."""
    if not _is_reviewed(row):
        return said
    _keep_feedback(connection, row["id"], said)
    return {}


def _is_reviewed(row: Row) -> bool:
    return (row["feedback_by"] or "").startswith(REVIEWER)


def _keep_feedback(connection: sa.Connection, record_id: str, said: Row) -> None:
    """Keep what a record's user says, or no more says, beside what reviewers say."""
    own = (_l.prediction_id == record_id, sa.not_(_BY_REVIEWER))
    connection.execute(sa.delete(labels).where(*own))
    if said["label"] is not None:
        value = {"label": said["label"], "labelled_us": said["feedback_us"]}
        _write_label(connection, record_id, said["feedback_by"], value)


def _write_label(
    connection: sa.Connection, record_id: str, giver: str, value: Mapping[str, Any]
) -> None:
    named = (_l.prediction_id == record_id, _l.reviewer == giver)
    if not connection.execute(sa.update(labels).where(*named).values(value)).rowcount:
        new = {"prediction_id": record_id, "reviewer": giver, **value}
        connection.execute(sa.insert(labels).values(new))
