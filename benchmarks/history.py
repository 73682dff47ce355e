"""How fast do the history and the dashboard answer over a log of 100,000 predictions in SQLite?

Fills a new log, then times each question on one thread.

    python benchmarks/history.py [--rows 100000] [--repeats 30] [--json benchmarks/history.json]
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from results import options, percentile, write

from inkdigits.log.queries import Filters
from inkdigits.log.record import Record, new_id, to_row
from inkdigits.log.store import Store

DAYS = 90
BROWSERS = 500
CORRECTED_SHARE = 0.1
START = datetime(2026, 1, 1, tzinfo=UTC)


def a_record(share: float, ink: Any, choice: random.Random) -> Record:
    """Return a prediction at a share of DAYS; a tenth of them are corrected."""
    digit, created_at = choice.randrange(10), START + timedelta(days=DAYS) * share
    is_corrected = choice.random() < CORRECTED_SHARE
    confidence = 1 - choice.random() ** 4
    probabilities = [(1 - confidence) / 9] * 10
    probabilities[digit] = confidence
    return Record(
        id=new_id(),
        created_at=created_at,
        digit=digit,
        confidence=confidence,
        probabilities=tuple(probabilities),
        decision=choice.choices(("accept", "review", "reject"), (90, 7, 3))[0],
        reason=None,
        novelty=choice.gauss(0, 1),
        model_version="benchmark",
        input_kind="drawn",
        owner=f"browser-{choice.randrange(BROWSERS)}",
        ink=ink,
        label=str(choice.choice((digit, digit, choice.randrange(10)))) if is_corrected else None,
        feedback_at=created_at if is_corrected else None,
        feedback_by="page" if is_corrected else None,
    )


def fill(store: Store, rows: int) -> None:
    """Write the predictions in batches."""
    choice = random.Random(0)
    inks = np.random.default_rng(0).integers(0, 256, (100, 28, 28), np.uint8)
    for start in range(0, rows, 500):
        batch = range(start, min(start + 500, rows))
        made = [to_row(a_record(n / rows, inks[n % 100], choice)) for n in batch]
        for row in made:
            store.reviews.shares.place(row)
        store._database.insert(made)


def milliseconds(question: Callable[[], object], repeats: int) -> dict[str, float]:
    """Return median, 95th percentile and maximum; the first call is not counted."""
    question()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        question()
        times.append((time.perf_counter() - began) * 1000)
    figures = {"median": statistics.median(times), "p95": percentile(times, 0.95)}
    return {name: round(value, 2) for name, value in {**figures, "max": max(times)}.items()}


def measure(rows: int, repeats: int) -> dict[str, Any]:
    """Fill a log in a temporary folder and time its questions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.sqlite3"
        with Store(f"sqlite:///{path}", outbox_dir=Path(folder) / "outbox") as store:
            fill(store, rows)
            middle = store.page(Filters(until=START + timedelta(days=DAYS / 2)), limit=1).older
            month = START + timedelta(days=DAYS - 30)
            questions: dict[str, Callable[[], object]] = {
                "first page": lambda: store.page(Filters(), limit=50),
                "page in the middle": lambda: store.page(Filters(), cursor=middle, limit=50),
                "first page of a digit": lambda: store.page(Filters(digit=3), limit=50),
                "first page of the wrong": lambda: store.page(Filters(feedback="wrong"), limit=50),
                "first page of a browser": lambda: store.page(Filters(owner="browser-7"), limit=50),
                "first page by confidence": lambda: store.page(sort="confidence"),
                "how many there are": store.count,
                "next of the review queue": lambda: store.reviews.next("ada"),
                "progress of the review": lambda: store.reviews.progress("ada"),
                "audit": lambda: store.reviews.audit("benchmark"),
                "dashboard by day": store.statistics,
                "dashboard, a month by hour": lambda: store.statistics(since=month, bucket="hour"),
                "dashboard of a browser": lambda: store.statistics(owner="browser-7"),
            }
            times = {name: milliseconds(ask, repeats) for name, ask in questions.items()}
        size = path.stat().st_size
    return {
        "rows": rows,
        "repeats": repeats,
        "milliseconds": times,
        "database_mb": round(size / 1e6, 1),
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=30)
    chosen = parser.parse_args()
    result = measure(chosen.rows, chosen.repeats)
    print(json.dumps(result, indent=2))
    write(chosen.json, result)


if __name__ == "__main__":
    main()
