"""What does a picture cost, what do many per second need, and does a queue model predict the wait?

Cost: CPU time per picture by kind, with one thread; rows of the log per gigabyte, and what a row
costs PostgreSQL (--database URL).

Queues: replicas of `inkdigits serve --no-page`, each with one worker, are pinned to two cores, and
a client per core sends canvas PNGs to those of its core in turn, at random times whatever the
answers do (an open loop). The time of a request that waits for no other is measured first, with
one and with two replicas per core. From it a simulation predicts p99 for 2, 3 and 4 replicas, which
is then measured: a queue per replica, and equal shares of a core for its replicas that have work.
Autoscaling is simulated with the same times and the measured start.

    python benchmarks/capacity.py --data data --database URL [--real-time]
        [--json benchmarks/capacity.json]

`--real-time` is for a machine that does other work: what is measured runs before it.
"""

from __future__ import annotations

import asyncio
import io
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from bulk import digits_of
from PIL import Image
from results import fail, options, percentile, write
from service import TICKS_PER_S, free_port, started
from serving import canvas_png

import inkdigits
from inkdigits.ink.png import encode_png
from inkdigits.log.connections import connect
from inkdigits.log.record import Record, new_id, to_row
from inkdigits.log.schema import predictions
from inkdigits.log.store import Store

BUSY = 0.65  # share of the time that the busiest core has work in the measured loads
TOLERANCE = 0.25
LOG_ROWS, GROUP = 20_000, 32  # in all, and in one transaction, as requests share one under load


def photo(ink: np.ndarray) -> bytes:
    """Return a digit on unevenly lit paper as a JPEG of 12 megapixels."""
    light = np.linspace(150, 220, 4000)[None, :] + np.linspace(-20, 20, 3000)[:, None]
    digit = np.asarray(Image.fromarray(ink).resize((1500, 1500), Image.Resampling.BICUBIC))
    light[700:2200, 1200:2700] *= 1 - 0.8 * digit / 255
    light += np.random.default_rng(0).normal(0, 4, light.shape)
    buffer = io.BytesIO()
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def cpu_ms(call: Callable[[], object], number: int, seconds: float = 3) -> float:
    """Return the CPU milliseconds per picture of a call that reads so many."""
    call()
    began, calls = time.process_time(), 0
    while time.process_time() - began < seconds:
        call()
        calls += 1
    return 1000 * (time.process_time() - began) / calls / number


def kinds(inks: np.ndarray) -> dict[str, float]:
    """Return the CPU milliseconds per picture of each kind."""
    reader = inkdigits.load(threads=1)
    canvases = [canvas_png(ink, transparent=True) for ink in inks[:256]]
    rows, large = list(inks[:512]), photo(inks[0])
    # Five digits in a line, black on white.
    fields = (Image.fromarray(255 - np.hstack(list(inks[i : i + 5]))) for i in range(9))
    lines = [encode_png(one.resize((700, 140))) for one in fields]
    return {
        "row of an array": cpu_ms(lambda: reader.predict_batch(rows), len(rows)),
        "canvas, PNG of 280x280": cpu_ms(lambda: reader.predict_batch(canvases), len(canvases)),
        "photograph, JPEG of 12 megapixels": cpu_ms(lambda: reader.predict(large), 1),
        "number field of five digits": cpu_ms(lambda: [reader.read(x) for x in lines], len(lines)),
    }


def log(url: str, inks: np.ndarray) -> dict[str, Any]:
    """Return what a row of the log takes in bytes, and of PostgreSQL in CPU time, on average."""
    shares = (0.91, *[0.01] * 9)
    read = {"digit": 0, "confidence": 0.91, "probabilities": shares, "decision": "accept"}
    about = {"reason": None, "novelty": -1.5, "input_kind": "drawn", "owner": None}
    engine = connect(url)
    with tempfile.TemporaryDirectory() as folder:
        Store(url, outbox_dir=folder).close()  # It makes the tables.

    def used() -> list[float]:
        size = "pg_database_size(current_database()), pg_current_wal_lsn() - '0/0'"
        with engine.connect() as connection:
            pid, *sizes = connection.exec_driver_sql(f"SELECT pg_backend_pid(), {size}").one()
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return [*map(float, sizes), 1e6 * sum(map(int, stat[11:13])) / TICKS_PER_S]

    before = used()
    for _ in range(LOG_ROWS // GROUP):
        made = {"created_at": datetime.now(UTC), "model_version": "capacity"}
        some = [Record(id=new_id(), ink=ink, **made, **read, **about) for ink in inks[:GROUP]]
        with engine.begin() as connection:
            connection.execute(sa.insert(predictions), [to_row(record) for record in some])
    each = [(now - then) / LOG_ROWS for now, then in zip(used(), before, strict=True)]
    engine.dispose()
    per_row = dict(zip(("bytes", "wal_bytes", "cpu_us"), each, strict=True))
    return {"database": "PostgreSQL", "n": LOG_ROWS, "per_row": per_row}


async def answered(port: int, idle: list[Any], request: bytes) -> float:
    """Send a request over an idle connection, or a new one, and return its seconds."""
    began = time.perf_counter()
    reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    (length,) = re.findall(rb"content-length: (\d+)", head, re.IGNORECASE)
    await reader.readexactly(int(length))
    idle.append((reader, writer))
    return time.perf_counter() - began


async def load(
    ports: Sequence[int], requests: Sequence[bytes], rate: float | None, seconds: float
) -> list[float]:
    """Return the seconds of requests at a rate, or without one of requests one after another."""
    gaps, asked, at = np.random.default_rng(len(ports)), list[Any](), time.perf_counter()
    turns, end = cycle([(port, list[Any]()) for port in ports]), at + seconds
    for request, (port, idle) in zip(cycle(requests), turns, strict=False):
        if max(at, time.perf_counter()) > end:
            break
        asked.append(asyncio.ensure_future(answered(port, idle, request)))
        if rate is None:
            await asked[-1]
            await asyncio.sleep(0.003)
        else:
            at += gaps.exponential(1 / rate)
            await asyncio.sleep(at - time.perf_counter())
    return list(await asyncio.gather(*asked))


def client(core: int, *load_of: Any) -> list[float]:
    """Load the replicas of a core from that core."""
    os.sched_setaffinity(0, {core})
    # Requests are sent when they are due, and not when a replica leaves the core.
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(3))
    return asyncio.run(load(*load_of))


def served(queues: Sequence[deque[list[float]]], now: float, gap: float) -> Iterator[float]:
    """Serve requests for a while, replicas in equal shares; yield the times of those done."""
    while gap > 1e-9 and (busy := [queue for queue in queues if queue]):
        step = min(gap / len(busy), *(queue[0][1] for queue in busy))
        now, gap = now + len(busy) * step, gap - len(busy) * step
        for queue in busy:
            queue[0][1] -= step
            if queue[0][1] < 1e-9:
                yield now - queue.popleft()[0]


def predicted_p99(count: int, rate: float, alone: dict[int, Any], n: int = 200_000) -> float:
    """Return the p99 of a queue per replica, with the times of as many replicas per core."""
    rng, times, now = np.random.default_rng(1), list[float](), 0.0
    for share in ((count + 1) // 2, count // 2):
        gaps = rng.exponential(count / (rate * share), n * share // count)
        took = rng.choice(alone[share], len(gaps))
        queues = [deque[list[float]]() for _ in range(share)]
        for queue, gap, work in zip(cycle(queues), gaps.tolist(), took.tolist(), strict=False):
            times += served(queues, now, gap)
            now += gap
            queue.append([now, work])
    return percentile(times, 0.99)


def queues(inks: np.ndarray, seconds: float) -> dict[str, Any]:
    """Measure requests that wait for none, predict p99 under load, and measure it."""
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    pngs = [canvas_png(ink, transparent=True) for ink in inks[:256]]
    requests = [f"{head}Content-Length: {len(png)}\r\n\r\n".encode() + png for png in pngs]
    cores = sorted(os.sched_getaffinity(0))[:2]
    began, settings = time.perf_counter(), {"INKDIGITS_WORKERS": "1", "INKDIGITS_SLOTS": "1"}
    with ExitStack() as stack:
        ports = [free_port() for _ in range(4)]
        for number, port in enumerate(ports):
            command = ["taskset", "--cpu-list", str(cores[number % 2]), sys.executable]
            command += ["-m", "inkdigits", "serve", "--no-page", "--port", str(port)]
            service = stack.enter_context(started(command, port, **settings))
            service.wait_for("POST", "/predict", pngs[0], "image/png")
        start_s = (time.perf_counter() - began) / len(ports)
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(2))

        def times(count: int, rate: float | None, length: float) -> list[float]:
            shares = zip(cores[:count], (ports[:count:2], ports[1:count:2]), strict=False)
            rates = [(core, some, rate and rate * len(some) / count) for core, some in shares]
            jobs = [(core, some, requests, each, length) for core, some, each in rates]
            return [one for found in pool.starmap(client, jobs, 1) for one in found]

        times(4, None, 2)  # They are warm then.
        alone, rows = {each: times(2 * each, None, seconds) for each in (1, 2)}, []
        for count in (2, 3, 4):
            rate = BUSY / statistics.fmean(alone[(count + 1) // 2]) * count / ((count + 1) // 2)
            row: dict[str, Any] = {"replicas": count, "rate": round(rate)}
            row["predicted_p99_ms"] = 1000 * predicted_p99(count, rate, alone)
            took = times(count, rate, seconds)
            row |= {"measured_p99_ms": 1000 * percentile(took, 0.99), "n": len(took)}
            rows.append(row | {"error": row["predicted_p99_ms"] / row["measured_p99_ms"] - 1})
            print(rows[-1], flush=True)
        found = {"start_s": round(start_s, 2), "replica_mb": round(service.resident_mb(), 1)}
    one, mean = alone[1], 1000 * statistics.fmean(alone[1])
    about = {"mean_ms": mean, "p99_ms": 1000 * percentile(one, 0.99), "n": len(one)}
    return {**found, "alone": about, "busy": BUSY, "rows": rows}


def scaled(
    rates: Sequence[float], service_s: float, start_s: float, target: float
) -> dict[str, Any]:
    """Simulate Kubernetes' autoscaler by CPU over the rates of each second.

    Every 15 s the replicas become those that would be busy for the target's share of the time, by
    the mean of the 30 s before; at most twice as many, or 4 more. New ones are ready after their
    start. What exceeds the capacity of a second waits.
    """
    ready, backlog = int(np.ceil(rates[0] * service_s / target)), 0.0
    starting, use, waits = Counter[int](), list[float](), list[float]()
    for second, rate in enumerate(rates):
        ready += starting.pop(second, 0)
        capacity = ready / service_s
        use.append(min(backlog + rate, capacity) * service_s)
        backlog = max(0.0, backlog + rate - capacity)
        waits.append(backlog / capacity)
        if second % 15 == 14:
            there = ready + sum(starting.values())
            wanted = int(np.ceil(np.mean(use[-30:]) / target))
            more = min(wanted, max(2 * there, there + 4)) - there
            if more > 0:
                starting[second + max(1, int(np.ceil(start_s)))] += more
    late = int(sum(wait > 0.25 for wait in waits))
    return {"longest_wait_s": round(max(waits), 2), "seconds_late": late, "replicas": ready}


def autoscaling(service_s: float, start_s: float) -> list[dict[str, Any]]:
    """Return what becomes of requests when the load of 1,000 per second doubles."""
    rows, ramps = [], {"at once": 1, "within 1 minute": 60, "within 5 minutes": 300}
    for name, target, pod_s in product(ramps, (0.7, 0.5), (start_s, start_s + 30)):
        rates = [*[1000.0] * 60, *np.linspace(1000, 2000, ramps[name]), *[2000.0] * 600]
        row = {"doubles": name, "target": target, "start_s": round(pod_s, 1)}
        rows.append(row | scaled(rates, service_s, pod_s, target))
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--database", help="URL of an empty PostgreSQL, for log")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each load")
    parser.add_argument("--only", nargs="*", default=["kinds", "log", "queues"], metavar="PART")
    parser.add_argument("--real-time", action="store_true")
    chosen = parser.parse_args()
    inks = digits_of(chosen.data)
    # The parts that are not measured keep their last figures.
    result = json.loads(chosen.json.read_text()) if chosen.json and chosen.json.is_file() else {}
    if "kinds" in chosen.only:
        result["cpu_ms"] = kinds(inks)
    if "log" in chosen.only:
        result["log"] = log(chosen.database, inks)
    if "queues" in chosen.only:
        if chosen.real_time:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
        found = queues(inks, chosen.seconds) | {"real_time": chosen.real_time}
        result["queues"] = found
        result["autoscaling"] = autoscaling(found["alone"]["mean_ms"] / 1000, found["start_s"])
    print(json.dumps(result, indent=2))
    write(chosen.json, result)
    rows = [r for r in result.get("queues", {}).get("rows", []) if abs(r["error"]) > TOLERANCE]
    fail([f"{row['replicas']} replicas: {row['error']:+.0%}" for row in rows])


if __name__ == "__main__":
    main()
