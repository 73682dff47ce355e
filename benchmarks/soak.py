"""Does memory grow, or do answers become slower, under ordinary load for ten minutes?

Clients send sound pictures of all formats and sizes over kept-alive connections, and now and then a
batch, a blank or something that is no picture. The workers' memory and the latencies are noted
every few seconds. It is a fault if the largest worker ends further above its memory after a fifth
of the time than GROWTH_LIMIT_MIB.

    python benchmarks/soak.py [--minutes 10] [--json benchmarks/soak.json]
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import random
import threading
import time
from collections import Counter
from typing import Any

from mutations import seeds
from PIL import Image
from results import fail, options, percentile, write
from service import Clients, Connection, running, status_mib

CONNECTIONS = 4
GROWTH_LIMIT_MIB = 20


class Load:
    """What the clients send, and what they were answered since it was last taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        blank = io.BytesIO()
        Image.new("L", (100, 100), 255).save(blank, "PNG")
        self._pictures = seeds()
        self._odd = [blank.getvalue(), b"no picture", self._pictures[0][:60]]

    def ask(self, connection: Connection, choice: random.Random) -> None:
        """Send a request and note its answer."""
        body, kind = self._request(choice)
        began = time.perf_counter()
        try:
            status = str(connection.post("/predict", body, {"Content-Type": kind})[0])
        except (OSError, http.client.HTTPException) as error:
            status = repr(error)
        with self._lock:
            self._seconds.append(time.perf_counter() - began)
            self.statuses[status] += 1

    def take(self) -> list[float]:
        """Return the milliseconds of the requests since the last call."""
        with self._lock:
            taken, self._seconds = self._seconds, []
        return [1000 * seconds for seconds in taken]

    def _request(self, choice: random.Random) -> tuple[bytes, str]:
        what = choice.random()
        if what < 0.05:
            return choice.choice(self._odd), "application/octet-stream"
        if what < 0.1:
            texts = [base64.b64encode(p).decode() for p in choice.sample(self._pictures, 8)]
            return json.dumps({"images": texts}).encode(), "application/json"
        return choice.choice(self._pictures), "application/octet-stream"


def soak(minutes: float, every: float) -> tuple[dict[str, Any], list[str]]:
    """Run it with a point every so many seconds, and return what is reported and the faults."""
    points: list[dict[str, Any]] = []
    with running(INKDIGITS_LOG_LEVEL="warning") as service:
        load, workers, began = Load(), service.workers(), time.monotonic()
        clients = Clients(service.port, CONNECTIONS, load.ask)
        while (passed := time.monotonic() - began) < minutes * 60:
            time.sleep(min(every, minutes * 60 - passed))
            times = load.take()
            points.append(
                {
                    "minutes": round((time.monotonic() - began) / 60, 2),
                    "largest_worker_mib": max(status_mib(p, "VmRSS") for p in service.workers()),
                    "parent_mib": status_mib(service.process.pid, "VmRSS"),
                    "median_ms": round(percentile(times, 0.5), 2) if times else None,
                    "p99_ms": round(percentile(times, 0.99), 2) if times else None,
                }
            )
        clients.stop()
        wrong = [] if service.workers() == workers else ["workers were replaced"]
    early, late = (points[n]["largest_worker_mib"] for n in (len(points) // 5, -1))
    if late - early > GROWTH_LIMIT_MIB:
        wrong.append(f"the largest worker grew from {early} to {late} MiB")
    wrong += [f"{n} times {s}" for s, n in load.statuses.items() if s not in ("200", "400")]
    return {
        "minutes": minutes,
        "connections": CONNECTIONS,
        "requests": load.statuses.total(),
        "statuses": dict(load.statuses.most_common()),
        "largest_worker_mib": {"after_a_fifth": early, "at_the_end": late},
        "wrong": wrong,
        "points": points,
    }, wrong


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=10, help="seconds between two points")
    chosen = parser.parse_args()
    report, wrong = soak(chosen.minutes, chosen.every)
    print(json.dumps({k: v for k, v in report.items() if k != "points"}, indent=2))
    write(chosen.json, report)
    fail(wrong)


if __name__ == "__main__":
    main()
