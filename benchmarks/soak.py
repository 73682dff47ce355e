"""Ordinary load for ten minutes: memory and latency over time, as figures and a plot.

Clients send what people send, sound pictures of all formats and sizes and now and then a batch, a
drawing without ink or something that is no picture, over kept-alive connections, each as soon as it
has been answered. Every few seconds the workers' memory and the latencies since the last time are
taken down. A growing memory is an error: the largest worker may not be further above what it was
after a fifth of the time than ``GROWTH_LIMIT_MIB``.

    nice python benchmarks/soak.py [--minutes 10] [--json benchmarks/soak.json]
        [--plot benchmarks/soak.png] [--beside "what else the machine did"]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from mutations import seeds
from PIL import Image
from service import PATIENCE_S, Service, running, status_kib

from inkdigits.evaluation.environment import hardware, versions

CONNECTIONS = 4
GROWTH_LIMIT_MIB = 20
SETTINGS = {"INKDIGITS_WORKERS": "2", "INKDIGITS_LOG_LEVEL": "warning"}


class Load:
    """What the clients send, and what came of it since it was last taken."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._seconds: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.is_over = threading.Event()
        buffer = io.BytesIO()
        Image.new("L", (100, 100), 255).save(buffer, "PNG")
        self._pictures = seeds()
        self._odd = [buffer.getvalue(), b"no picture", self._pictures[0][:60]]

    def run(self, seed: int) -> None:
        choice = random.Random(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        while not self.is_over.is_set():
            body, kind = self._request(choice)
            began = time.perf_counter()
            try:
                connection.request("POST", "/predict", body, {"Content-Type": kind})
                response = connection.getresponse()
                response.read()
                status = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                status = repr(error)
                connection.close()
            with self._lock:
                self._seconds.append(time.perf_counter() - began)
                self.statuses[status] += 1
        connection.close()

    def take(self) -> list[float]:
        """The seconds of the requests since the last time."""
        with self._lock:
            taken, self._seconds = self._seconds, []
        return taken

    def _request(self, choice: random.Random) -> tuple[bytes, str]:
        what = choice.random()
        if what < 0.05:
            return choice.choice(self._odd), "application/octet-stream"
        if what < 0.1:
            texts = [base64.b64encode(p).decode() for p in choice.sample(self._pictures, 8)]
            return json.dumps({"images": texts}).encode(), "application/json"
        return choice.choice(self._pictures), "application/octet-stream"


def sample(service: Service, load: Load, minutes: float) -> dict[str, Any]:
    """One point of the curves."""
    times = sorted(load.take())
    return {
        "minutes": round(minutes, 3),
        "requests": len(times),
        "workers_mib": [round(status_kib(pid, "VmRSS") / 1024, 1) for pid in service.workers()],
        "parent_mib": round(status_kib(service.process.pid, "VmRSS") / 1024, 1),
        "median_ms": round(statistics.median(times) * 1000, 2) if times else None,
        "p99_ms": round(times[int(0.99 * (len(times) - 1))] * 1000, 2) if times else None,
    }


def soak(minutes: float, every: float) -> tuple[dict[str, Any], list[str]]:
    """Run it.

    Args:
        minutes: how long.
        every: seconds between two points.

    Returns:
        What is reported, and what went wrong.
    """
    points: list[dict[str, Any]] = []
    with running(**SETTINGS) as service:
        load, workers = Load(service.port), service.workers()
        threads = [threading.Thread(target=load.run, args=(n,)) for n in range(CONNECTIONS)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        while (passed := time.monotonic() - began) < minutes * 60:
            time.sleep(min(every, minutes * 60 - passed))
            points.append(sample(service, load, (time.monotonic() - began) / 60))
        load.is_over.set()
        for thread in threads:
            thread.join()
        wrong = [] if service.workers() == workers else ["workers were replaced"]
    largest = [max(point["workers_mib"]) for point in points]
    early, late = largest[len(largest) // 5], largest[-1]
    half = len(points) // 2
    slope = np.polyfit([p["minutes"] for p in points[half:]], largest[half:], 1)[0] if half else 0
    if late - early > GROWTH_LIMIT_MIB:
        wrong.append(f"the largest worker grew from {early} to {late} MiB")
    wrong += [
        f"{n} times {status}" for status, n in load.statuses.items() if status not in ("200", "400")
    ]
    report = {
        "minutes": minutes,
        "connections": CONNECTIONS,
        "requests": sum(load.statuses.values()),
        "statuses": dict(load.statuses.most_common()),
        "largest_worker_mib": {"after_a_fifth": early, "at_the_end": late},
        "growth_in_the_second_half_mib_per_minute": round(float(slope), 3),
        "wrong": wrong,
        "points": points,
        "hardware": hardware(),
        "versions": versions(),
    }
    return report, wrong


def plot(report: dict[str, Any], path: Path) -> None:
    """Memory above, latency below."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    points = report["points"]
    minutes = [point["minutes"] for point in points]
    figure, (memory, latency) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), dpi=110)
    for number in range(len(points[0]["workers_mib"])):
        curve = [point["workers_mib"][number] for point in points]
        memory.plot(minutes, curve, label=f"worker {number + 1}")
    memory.plot(minutes, [point["parent_mib"] for point in points], label="parent", color="0.5")
    memory.set(ylabel="resident memory, MiB", ylim=(0, None))
    memory.legend(loc="lower left", ncols=3)
    for name, label in (("median_ms", "median"), ("p99_ms", "99th percentile")):
        latency.plot(minutes, [point[name] for point in points], label=label)
    latency.set(ylabel="latency, ms", xlabel="minutes", yscale="log")
    latency.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    latency.yaxis.set_major_formatter("{x:g}")
    latency.yaxis.set_minor_locator(NullLocator())
    latency.legend(loc="lower right", ncols=2)
    for axes in (memory, latency):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    memory.set_title(
        f"{report['requests']:,} requests over {report['connections']} connections", loc="left"
    )
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=5, help="seconds between two points")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, help="file for the plot")
    parser.add_argument("--beside", help="what else the machine did meanwhile, for the report")
    options = parser.parse_args()
    report, wrong = soak(options.minutes, options.every)
    if options.beside:
        report = {"beside": options.beside, **report}
    shown = ("requests", "statuses", "largest_worker_mib", "wrong")
    print(json.dumps({name: report[name] for name in shown}, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.plot:
        plot(report, options.plot)
    if wrong:
        raise SystemExit(f"{len(wrong)} things went wrong")


if __name__ == "__main__":
    main()
