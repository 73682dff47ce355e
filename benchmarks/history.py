"""How fast the history and the dashboard answer over a long log, in SQLite.

Fills a new log with predictions, then times its questions, each many times, on one thread.
Usage: python benchmarks/history.py [--rows 100000] [--repeats 30] [--out benchmarks/history.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from inkdigits.log import queries as history
from inkdigits.log import statistics as dashboard
from inkdigits.log.ids import new_id
from inkdigits.log.queries import Filters
from inkdigits.log.record import Record, to_row
from inkdigits.log.store import Store

DAYS = 90
OWNERS = 500
CORRECTED = 0.1
START = datetime(2026, 1, 1, tzinfo=UTC)


def a_record(number: int, rows: int, ink: Any, choose: random.Random) -> Record:
    """One of ``rows`` predictions spread evenly over DAYS, a tenth of them corrected."""
    digit = choose.randrange(10)
    created_at = START + timedelta(days=DAYS) * (number / rows)
    is_corrected = choose.random() < CORRECTED
    confidence = 1 - choose.random() ** 4
    probabilities = [(1 - confidence) / 9] * 10
    probabilities[digit] = confidence
    return Record(
        id=new_id(),
        created_at=created_at,
        digit=digit,
        confidence=confidence,
        probabilities=tuple(probabilities),
        decision=choose.choices(("accept", "review", "reject"), (90, 7, 3))[0],
        reason=None,
        novelty=choose.gauss(0, 1),
        model_version="benchmark",
        input_kind="drawn",
        owner=f"browser-{choose.randrange(OWNERS)}",
        ink=ink,
        true_digit=choose.choice((digit, digit, choose.randrange(10))) if is_corrected else None,
        feedback_at=created_at if is_corrected else None,
        feedback_by="page" if is_corrected else None,
    )


def fill(store: Store, rows: int) -> None:
    """Write ``rows`` predictions, in batches rather than one by one as they come in service."""
    choose = random.Random(0)
    inks = np.random.default_rng(0).integers(0, 256, (100, 28, 28), np.uint8)
    for start in range(0, rows, 5000):
        batch = range(start, min(start + 5000, rows))
        store._database.insert([to_row(a_record(n, rows, inks[n % 100], choose)) for n in batch])


def milliseconds(question: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median, 95th percentile and worst of ``repeats`` askings, after one that isn't counted."""
    question()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        question()
        times.append((time.perf_counter() - began) * 1000)
    return {
        "median": round(statistics.median(times), 2),
        "p95": round(float(np.percentile(times, 95)), 2),
        "max": round(max(times), 2),
    }


def plan(store: Store, query: sa.Select[Any]) -> list[str]:
    """SQLite's plan of a query."""
    text = query.compile(store._database.engine, compile_kwargs={"literal_binds": True})
    with store._database.transaction() as connection:
        return [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]


def processor() -> str:
    """The processor's name as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure(rows: int, repeats: int) -> dict[str, Any]:
    """Fill a log in a temporary folder and time its questions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sqlite3"
        with Store.open(f"sqlite:///{path}", outbox_dir=Path(folder) / "spool") as store:
            fill(store, rows)
            middle = store.page(Filters(until=START + timedelta(days=DAYS / 2)), limit=1)
            last_month = START + timedelta(days=DAYS - 30)
            pages = {
                "first page": (Filters(), None),
                "page in the middle": (Filters(), middle.older),
                "first page of a digit": (Filters(digit=3), None),
                "first page of a decision": (Filters(decision="reject"), None),
                "first page of the wrong ones": (Filters(feedback="wrong"), None),
                "first page of one browser": (Filters(owner="browser-7"), None),
            }
            times = {
                name: milliseconds(lambda f=f, c=c: store.page(f, cursor=c, limit=50), repeats)
                for name, (f, c) in pages.items()
            }
            times["dashboard, all by day"] = milliseconds(store.statistics, repeats)
            times["dashboard, last 30 days by hour"] = milliseconds(
                lambda: store.statistics(since=last_month, bucket="hour"), repeats
            )
            times["dashboard of one browser"] = milliseconds(
                lambda: store.statistics(owner="browser-7"), repeats
            )
            inks = np.random.default_rng(1).integers(0, 256, (28, 28), np.uint8)
            choose = random.Random(1)
            times["record one prediction"] = milliseconds(
                lambda: store.keep(a_record(rows, rows, inks, choose)), repeats
            )
            plans = {
                name: plan(store, history.page_query(f, c, 50)) for name, (f, c) in pages.items()
            }
            over_time = dashboard.over_time_query(Filters(), "day", range(DAYS))
            plans["dashboard's span of time"] = plan(store, dashboard.span_query(Filters()))
            plans["dashboard over time"] = plan(store, over_time)
            plans["dashboard corrected"] = plan(store, dashboard.corrected_query(Filters()))
        size = path.stat().st_size
    return {
        "rows": rows,
        "corrected_share": CORRECTED,
        "repeats": repeats,
        "milliseconds": times,
        "query_plans": plans,
        "database_mb": round(size / 1e6, 1),
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "load_average_1min": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "sqlalchemy": sa.__version__,
            "numpy": np.__version__,
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = json.dumps(measure(arguments.rows, arguments.repeats), indent=2)
    print(result)
    if arguments.out is not None:
        arguments.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
