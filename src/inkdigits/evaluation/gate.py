"""A gate: what a new model must reach before it is served, as a small TOML file of the user's.

``[[on]]`` names labelled pictures and limits, ``[watch]`` what the service keeps to afterwards;
docs/your-own-digits.md shows one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from inkdigits.data.labelled import describe_left_out, read_labelled
from inkdigits.decision.prediction import Reader
from inkdigits.errors import DataError
from inkdigits.evaluation.compare import Comparison, Pair, compare, drop_bound, pictures_needed
from inkdigits.types import Json, Report

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Drop = Annotated[float, msgspec.Meta(gt=0, le=1)]  # equal models cannot show a drop below 0
_Above = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the new model must reach on some labelled pictures; None asks nothing."""

    name: str
    data: str | list[str]
    pattern: str | None = None
    limit: _Count | None = None  # the most pictures per source
    # Below the current model's; kept only if the one-sided 95 % bound of the drop keeps it too.
    max_accuracy_drop: _Drop | None = None
    min_accuracy: _Share | None = None
    max_wrong_of_accepted: _Share | None = None
    max_coverage_drop: _Share | None = None

    def failures(self, pair: Pair) -> list[str]:
        """Return what the new model, B, does not reach."""
        wrong = pair.b.wrong_of_accepted
        checks = (
            ("accuracy", pair.b.accuracy.value, self.min_accuracy, False),
            ("wrong of accepted", wrong.value if wrong else 0.0, self.max_wrong_of_accepted, True),
            ("loss of coverage", pair.a.coverage - pair.b.coverage, self.max_coverage_drop, True),
        )
        found = [
            f"{self.name}: {what} is {100 * value:.2f} %; the {'largest' if most else 'smallest'} "
            f"allowed value is {100 * limit:.2f} %"
            for what, value, limit, most in checks
            if limit is not None and (value > limit + 1e-12 if most else value < limit - 1e-12)
        ]
        limit, drop = self.max_accuracy_drop, (pair.only_a - pair.only_b) / pair.a.n
        bound = drop_bound(pair.only_a, pair.only_b, pair.a.n)
        if limit is None or bound <= limit:
            return found
        needed = pictures_needed(pair.only_a, pair.only_b, pair.a.n, limit)
        more = "" if needed is None else f". Use about {needed:,} pictures."
        return [
            *found,
            f"{self.name}: the loss of accuracy on {pair.a.n:,} pictures is {100 * drop:.2f} %, at "
            f"most {100 * bound:.2f} %; the limit is {100 * limit:.2f} %{more}",
        ]


class Watch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a promoted model must keep to in its first readings by the service."""

    readings: _Count = 1000
    max_rejected: _Share | None = None
    max_latency_ms: _Above | None = None


class ModelGate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    on: Annotated[list[Condition], msgspec.Meta(min_length=1)]
    max_slowdown: _Above | None = None  # times the current model's time per picture
    max_size_mb: _Above | None = None  # of the artifact, in 10⁶ bytes
    watch: Watch | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What a gate found: it is passed without failures."""

    comparisons: dict[str, Comparison]
    failures: list[str]

    def to_record(self) -> Json:
        """Return what the record of a promotion holds of it: single figures."""
        on: Json = {}
        for name, one in self.comparisons.items():
            pair = one.pairs[0]
            on[name] = {
                "n": pair.a.n,
                "accuracy": [pair.a.accuracy.value, pair.b.accuracy.value],
                "coverage": [pair.a.coverage, pair.b.coverage],
                "wrong": [pair.a.n_wrong, pair.b.n_wrong],
                "p": pair.p,
                "milliseconds": list(one.milliseconds),
            }
        return {"on": on, "failures": self.failures}


def read_gate(path: Path) -> ModelGate:
    """Return the gate in a file; a DataError says what is wrong with it.

    >>> read_gate(Path("none.toml"))
    Traceback (most recent call last):
    inkdigits.errors.DataError: there is no gate at none.toml
    """
    try:
        gate = msgspec.toml.decode(path.read_bytes(), type=ModelGate)
    except FileNotFoundError as error:
        raise DataError(f"there is no gate at {path}") from error
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"the gate {path} is invalid: {error}") from error
    names = [condition.name for condition in gate.on]
    if len(set(names)) < len(names):
        raise DataError(f"the gate {path} is invalid: two conditions have the same name")
    for condition in gate.on:
        limits = (
            *(condition.max_accuracy_drop, condition.min_accuracy, gate.max_size_mb),
            *(condition.max_wrong_of_accepted, condition.max_coverage_drop, gate.max_slowdown),
        )
        if all(limit is None for limit in limits):
            raise DataError(
                f"the gate {path} is invalid: {condition.name!r} has no limit; add one, such as "
                "max_accuracy_drop = 0.01"
            )
    return gate


def run_gate(
    path: Path, a: Reader, b: Reader, size_mb: float, report: Report = lambda _: None
) -> Outcome:
    """Compare B, an artifact of ``size_mb``, with A, the current model; report each table.

    >>> import inkdigits
    >>> run_gate(Path("none.toml"), inkdigits.load(), inkdigits.load(), 7.0)
    Traceback (most recent call last):
    inkdigits.errors.DataError: there is no gate at none.toml
    """
    gate = read_gate(path)
    comparisons: dict[str, Comparison] = {}
    failures: list[str] = []
    if gate.max_size_mb is not None and size_mb > gate.max_size_mb:
        failures.append(f"the artifact has {size_mb:.2f} MB; the limit is {gate.max_size_mb:g} MB")
    for condition in gate.on:
        given = [condition.data] if isinstance(condition.data, str) else condition.data
        sources = [one if "://" in one else path.parent / one for one in given]
        labelled = read_labelled(sources, pattern=condition.pattern, limit=condition.limit)
        comparison = compare(a, b, labelled)
        comparisons[condition.name] = comparison
        describe_left_out(comparison.left_out, report)
        report(f"{condition.name}\n{comparison.table()}")
        failures += condition.failures(comparison.pairs[0])
        slower = comparison.milliseconds[1] / comparison.milliseconds[0]
        if gate.max_slowdown is not None and slower > gate.max_slowdown:
            failures.append(
                f"{condition.name}: a picture takes {slower:.2f} times as long; the limit is "
                f"{gate.max_slowdown:g} times"
            )
    return Outcome(comparisons, failures)
