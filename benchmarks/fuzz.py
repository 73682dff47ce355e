"""What does the service answer to requests that nobody should send, and what do they cost it?

Sends cases of mutations.py over several kept-alive connections at once. Every case must be answered
with a status of 2xx or 4xx, and with JSON or the tensors that were asked for, within a limit of
seconds. No worker may die or log an error, and the workers' memory may not grow beyond a limit.
Then the application gets them, and pictures of as many pixels as are allowed, one at a time in this
process. None may take more than a limit of CPU seconds and of memory.

    python benchmarks/fuzz.py [--cases 20000] [--seed 1] [--json benchmarks/fuzz.json]
"""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mutations import Case, cases, largest
from results import fail, options, write
from service import Clients, Connection, running, status_mib

import inkdigits
from inkdigits.model.allocator import return_freed_memory
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

CONNECTIONS = 8
PARTS = 10
"""Memory is measured after each part; after the first one buffers and pools have their size."""
GROWTH_LIMIT_MIB = 150
FAULT = re.compile(r'"level": ?"(error|critical)"|Traceback')
"""In a line of the log."""
Answer = tuple[int, str, bytes]
"""The status, the type and the body; the status is 0 without an answer."""
CPU_LIMIT_S, MEMORY_LIMIT_MB = 2.0, 300.0
"""Of one request, beyond what the process held before it."""


class Fuzzer:
    """Sends cases and counts what is answered."""

    def __init__(self, port: int, seed: int, count: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._cases = enumerate(cases(seed, count))
        self.answers: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest_s = 0.0
        self.closed = 0

    def send(self, count: int) -> None:
        """Send the next cases. They are made while they are sent, so memory does not grow here."""
        some = islice(self._cases, count)
        Clients(self._port, CONNECTIONS, lambda connection, _: self._ask(connection, some)).wait()

    def _ask(self, connection: Connection, some: Iterator[tuple[int, Case]]) -> bool:
        with self._lock:
            number, case = next(some, (-1, None))
        if case is None:
            return False
        began, is_reused = time.monotonic(), connection.sock is not None
        answer = _answer(connection, case)
        if is_reused and not answer[0]:
            # The service has closed the connection after its last answer.
            self.closed += 1
            answer = _answer(connection, case)
        self._count(number, case, answer, time.monotonic() - began)
        return True

    def _count(self, number: int, case: Case, answered: Answer, seconds: float) -> None:
        status, kind, body = answered
        answer = {} if kind == "application/octet-stream" else None
        with suppress(ValueError):
            answer = json.loads(body) if answer is None else answer
        is_right = (200 <= status < 300 or 400 <= status < 500) and answer is not None
        error = answer.get("error") if isinstance(answer, dict) and status >= 400 else ""
        code = error.get("code", "?") if isinstance(error, dict) else "v2" if error else ""
        with self._lock:
            self.answers[f"{status} {code}".strip()] += 1
            self.kinds[case.kind] += 1
            self.slowest_s = max(self.slowest_s, seconds)
            if not is_right:
                self.wrong.append(f"case {number} ({case.kind}): {status} {body[:200]!r}")


def _answer(connection: Connection, case: Case) -> Answer:
    try:
        return connection.post(case.path, case.body, case.headers)
    except (OSError, http.client.HTTPException) as error:
        return 0, "", repr(error).encode()


def fuzz(count: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Send so many cases, and return what is reported and the faults."""
    # No request may be denied for want of room here.
    with running(INKDIGITS_DEADLINE="3600") as service:
        before, began, stages = service.workers(), time.monotonic(), []
        fuzzer = Fuzzer(service.port, seed, count)
        for _ in range(PARTS):
            fuzzer.send(-(-count // PARTS))
            resident = max(status_mib(pid, "VmRSS") for pid in service.workers())
            stages.append({"cases": fuzzer.answers.total(), "resident_mib": resident})
        seconds, wrong = time.monotonic() - began, fuzzer.wrong
        # What /proc lists of sockets is no snapshot, but a process that is there has not died.
        wrong += [f"worker {pid} has died" for pid in before if not Path(f"/proc/{pid}").exists()]
        lines = service.log.read_text(errors="replace").splitlines()
        wrong += [f"in the log: {line[:500]}" for line in lines if FAULT.search(line)]
    growth = stages[-1]["resident_mib"] - stages[0]["resident_mib"]
    if growth > GROWTH_LIMIT_MIB:
        wrong.append(f"the largest worker grew by {growth:.0f} MiB")
    report = {"cases": fuzzer.answers.total(), "seed": seed, "seconds": round(seconds, 1)}
    report["slowest_answer_s"] = round(fuzzer.slowest_s, 3)
    report["connections_closed_after_an_answer"] = fuzzer.closed
    counts = {name: dict(getattr(fuzzer, name).most_common()) for name in ("answers", "kinds")}
    return {**report, **counts, "wrong": wrong, "largest_worker": stages}, wrong


def costs(count: int, seed: int) -> tuple[dict[str, Any], list[str]]:
    """Return the costliest of so many cases and of the largest pictures, and the faults."""
    client = create_app(Settings(page="off"), inkdigits.load()).test_client()
    named = ((f"case {number}", case) for number, case in enumerate(cases(seed, count)))
    found: list[tuple[float, float, str]] = []
    for name, case in chain(named, largest(Settings().max_pixels)):
        if len(case.body) > Settings().max_bytes:
            continue
        return_freed_memory()
        # Lets the peak of resident memory begin anew (proc(5)).
        Path("/proc/self/clear_refs").write_text("5")
        before, began = status_mib(os.getpid(), "VmRSS"), time.process_time()
        client.post(case.path, data=case.body, headers=case.headers)
        seconds = time.process_time() - began
        megabytes = (status_mib(os.getpid(), "VmHWM") - before) * 2**20 / 1e6
        found.append((round(seconds, 3), round(megabytes, 1), name))
    too_costly = ((s, mb, n) for s, mb, n in found if s > CPU_LIMIT_S or mb > MEMORY_LIMIT_MB)
    report: dict[str, Any] = {"requests": len(found)}
    report["most_cpu_s"] = [(name, s) for s, _, name in sorted(found, reverse=True)[:5]]
    by_memory = sorted(found, key=lambda one: -one[1])
    report["most_memory_mb"] = [(name, mb) for _, mb, name in by_memory[:5]]
    return report, [f"{name}: {s} s, {mb} MB" for s, mb, name in too_costly]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    report, wrong = fuzz(chosen.cases, chosen.seed)
    report["one_at_a_time"], too_costly = costs(chosen.cases, chosen.seed)
    print(json.dumps(report, indent=2))
    write(chosen.json, report)
    fail(wrong + too_costly)


if __name__ == "__main__":
    main()
