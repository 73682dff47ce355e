"""What was to be shown, and whether it was: from the medians of each contender."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from contest.load import CONNECTIONS

OVER_BEST_PEER = 1.3
OVER_DEMO = 10.0
OF_FLOOR = 0.4
MEMORY_MB = 200.0
FIRST_ANSWER_S = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One aim.

    Attributes:
        aim: in words.
        found: what was measured, in words.
        is_met: whether it was reached.
    """

    aim: str
    found: str
    is_met: bool


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One contender's rounds as one: medians of its figures, and the sum of its failures.

    Args:
        runs: a round each, with ``loads`` by number of connections, ``memory_mb``,
            ``first_answer_s`` and ``wrong``.
    """

    def median(values: Iterable[float]) -> float:
        return statistics.median(list(values))

    loads = {
        level: {
            name: median(run["loads"][level][name] for run in runs)
            for name in ("requests_per_second", "p50", "p95", "p99", "client_cpu_us")
        }
        for level in runs[0]["loads"]
    }
    return {
        "rounds": len(runs),
        "loads": loads,
        "memory_mb": {
            name: median(run["memory_mb"][name] for run in runs) for name in ("pss", "rss")
        },
        "first_answer_s": median(run["first_answer_s"] for run in runs),
        "requests": sum(load["requests"] for run in runs for load in run["loads"].values()),
        "failed": sum(load["failed"] for run in runs for load in run["loads"].values())
        + sum(run["wrong"] for run in runs),
    }


def strongest(results: dict[str, dict[str, Any]], number: int = 3) -> list[str]:
    """The contenders of the highest geometric mean of requests a second over all loads.

    Args:
        results: ``medians`` of each.
        number: how many.
    """

    def mean(name: str) -> float:
        rates = [load["requests_per_second"] for load in results[name]["loads"].values()]
        return statistics.fmean(math.log(max(rate, 1e-9)) for rate in rates)

    return sorted(results, key=mean, reverse=True)[:number]


def judge(results: dict[str, dict[str, Any]], groups: dict[str, str]) -> list[Verdict]:
    """Each aim that the contenders measured allow to be judged.

    Args:
        results: ``medians`` by contender; "inkdigits" is ours, "demo" the ordinary demo's.
        groups: of each contender, see ``contenders.Group``.
    """
    ours = results.get("inkdigits")
    if ours is None:
        return []
    of = {
        group: [name for name in results if groups[name] == group] for group in set(groups.values())
    }

    def rate(name: str, level: str) -> float:
        return float(results[name]["loads"][level]["requests_per_second"])

    levels = [level for level in map(str, CONNECTIONS) if level in ours["loads"]]
    verdicts = []
    for level in levels:
        own = rate("inkdigits", level)
        at = f"at {level} connection{'s' if level != '1' else ''}"
        if peers := of.get("as written"):
            best = max(peers, key=lambda name: rate(name, level))
            verdicts.append(_times(own, rate(best, level), OVER_BEST_PEER, f"best peer {at}", best))
        verdicts += [
            _times(own, rate(peer, level), 1.0, f"{peer} {at}", peer)
            for peer in of.get("serving layer", [])
        ]
        if "demo" in results and level != "1":
            aim = f"the demo's arrangement {at}"
            verdicts.append(_times(own, rate("demo", level), OVER_DEMO, aim, "demo"))
        for floor in of.get("floor", []):
            share = own / rate(floor, level)
            verdicts.append(
                Verdict(
                    f"at least {OF_FLOOR:.0%} of the constant answer {at}",
                    f"{share:.0%} ({own:,.0f} of {rate(floor, level):,.0f}/s)",
                    share >= OF_FLOOR,
                )
            )
    if (peers := of.get("as written")) and "8" in levels:
        slowest = {name: results[name]["loads"]["8"]["p99"] for name in (*peers, "inkdigits")}
        best = min(peers, key=slowest.__getitem__)
        verdicts.append(
            Verdict(
                "p99 at 8 connections no longer than the best peer's",
                f"{slowest['inkdigits']:.1f} ms, {best} {slowest[best]:.1f} ms",
                slowest["inkdigits"] <= slowest[best],
            )
        )
    memory, first = ours["memory_mb"]["pss"], ours["first_answer_s"]
    return [
        *verdicts,
        Verdict(f"under {MEMORY_MB:.0f} MB resident", f"{memory:.0f} MB", memory < MEMORY_MB),
        Verdict(f"first answer in {FIRST_ANSWER_S:g} s", f"{first:.2f} s", first < FIRST_ANSWER_S),
        Verdict("no failed request", f"{ours['failed']} failed", not ours["failed"]),
    ]


def _times(own: float, other: float, needed: float, aim: str, name: str) -> Verdict:
    times = own / other if other else math.inf
    return Verdict(
        f"at least {needed:g} times {aim}",
        f"{times:.2f} times ({own:,.0f} to {name}'s {other:,.0f}/s)",
        times >= needed,
    )
