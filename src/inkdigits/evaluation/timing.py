"""Contenders at tasks: timed in turns, compared with a baseline, and tabled."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from inkdigits.evaluation.environment import Hardware
from inkdigits.evaluation.report import aligned

BASELINE = "PyTorch, CPU"
# A timer's resolution and a scheduler's delays are small beside this.
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One contender at one task."""

    task: str  # what was done once
    contender: str  # what did it
    # For doing it once, over the samples.
    seconds_median: float
    seconds_min: float
    seconds_max: float
    rate: float  # work done per second, by the median
    unit: str  # of ``rate``


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """What ``speed.run_benchmark`` measured, and on what."""

    rows: tuple[Row, ...]  # task by task, the baseline first within each
    accelerator: str | None  # its name; None where only the CPU was measured
    threads: int  # of PyTorch and of ONNX Runtime, on the CPU
    repeats: int  # samples of each row
    hardware: Hardware  # see ``environment.hardware``
    versions: dict[str, str]  # see ``environment.versions``
    notes: tuple[str, ...]  # sentences on what was not measured, and why

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON, with the speed-ups."""
        return {**asdict(self), "speedups": self.speedups()}

    def speedups(self) -> list[dict[str, Any]]:
        """Return every contender against the baseline, as ``plots.speedup_chart`` takes it."""
        baseline = {row.task: row.seconds_median for row in self.rows if row.contender == BASELINE}
        return [
            {
                "task": row.task,
                "baseline": BASELINE,
                "contender": row.contender,
                "speedup": baseline[row.task] / row.seconds_median,
            }
            for row in self.rows
            if row.contender != BASELINE
        ]

    def table(self) -> str:
        """Return the rows as plain text, with what the columns mean."""
        speedups = {(s["task"], s["contender"]): s["speedup"] for s in self.speedups()}
        cells = [("task", "contender", "time", "fastest to slowest", "rate", "speed")]
        for before, row in zip((None, *self.rows), self.rows, strict=False):
            scale, unit = _scale(row.seconds_median)
            speedup = speedups.get((row.task, row.contender), 1.0)
            rate = f"{row.rate:,.0f}" if row.rate >= 100 else f"{row.rate:.3g}"
            cells.append(
                (
                    "" if before and row.task == before.task else row.task,
                    row.contender,
                    f"{row.seconds_median * scale:.3g} {unit}",
                    f"{row.seconds_min * scale:.3g} to {row.seconds_max * scale:.3g} {unit}",
                    f"{rate} {row.unit}",
                    f"{speedup:.3g} x",
                )
            )
        packages = [f"{name} {self.versions[name]}" for name in ("python", "torch", "onnxruntime")]
        return "\n".join(
            [
                f"CPU: {self.hardware['cpu']}, {self.hardware['cores']} cores; "
                f"{self.threads} threads",
                f"Accelerator: {self.accelerator or 'none'}",
                f"Versions: {', '.join(packages)}",
                "",
                aligned(cells, left=2),
                "",
                f"time: of doing the task once, the median of {self.repeats} samples of at least "
                f"{SAMPLE_SECONDS * 1000:g} ms each.",
                f"speed: times as fast as {BASELINE}; above 1 is faster.",
                *self.notes,
            ]
        )


def _scale(seconds: float) -> tuple[float, str]:
    if seconds < 1e-3:
        return 1e6, "µs"
    return (1e3, "ms") if seconds < 1.0 else (1.0, "s")


def time_in_turns(
    contenders: Mapping[str, Callable[[], object]],
    repeats: int,
    synchronize: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the seconds of one call of each contender, ``repeats`` samples each.

    Each contender is warmed up, and called as often per sample as fills ``SAMPLE_SECONDS``. The
    samples are taken in turns, so that a drift of the machine affects all contenders.
    ``synchronize`` waits until all that the calls began is done.

    >>> len(time_in_turns({"sleep": lambda: time.sleep(0.06)}, 2)["sleep"])
    2
    """

    def sample(call: Callable[[], object], calls: int) -> float:
        synchronize()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        synchronize()
        return time.perf_counter() - started

    calls = {}
    for name, call in contenders.items():
        sample(call, 1)  # allocates, chooses kernels, starts threads
        count, seconds = 1, sample(call, 1)
        while seconds < SAMPLE_SECONDS:
            # A tenth more than needed; at most tenfold, as a first estimate may be far off.
            count = math.ceil(count * min(10.0, 1.1 * SAMPLE_SECONDS / max(seconds, 1e-9)))
            seconds = sample(call, count)
        calls[name] = count
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            samples[name].append(sample(call, calls[name]) / calls[name])
    return samples


def summarise(task: str, samples: Mapping[str, list[float]], work: float, unit: str) -> list[Row]:
    """Return a row per contender, from the seconds that ``time_in_turns`` measured.

    ``work`` is what one call does, in ``unit`` without "/s".

    >>> summarise("read", {"CPU": [1.0, 2.0, 4.0]}, 8, "pictures/s")[0].rate
    4.0
    """
    rows = []
    for name, seconds in samples.items():
        median = statistics.median(seconds)
        rows.append(Row(task, name, median, min(seconds), max(seconds), work / median, unit))
    return rows
