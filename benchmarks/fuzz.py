"""Requests that nobody should send, to a real service: what is answered, and what it costs.

Sends cases of ``mutations.py`` over several kept-alive connections at once. Every one must be
answered with a status of 2xx or 4xx and with JSON or the tensors that were asked for; no worker may
die, and the memory of the workers may not grow beyond a limit. Queue and deadline are set so that
nothing is refused for want of room.

    python benchmarks/fuzz.py [--cases 20000] [--seed 1] [--json benchmarks/fuzz.json]
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from mutations import Case, cases
from service import PATIENCE_S, Service, running, status_kib

from inkdigits.evaluation.environment import hardware, versions

CONNECTIONS = 8
# Parts after each of which the memory is looked at; after the first, buffers and pools have their
# size.
PARTS = 10
GROWTH_LIMIT_MIB = 150
SETTINGS = {"INKDIGITS_WORKERS": "2", "INKDIGITS_QUEUE": "4096", "INKDIGITS_DEADLINE": "3600"}


@dataclass
class Tally:
    """What was answered."""

    answers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, number: int, case: Case, status: int | None, kind: str, body: bytes) -> None:
        code = "" if status is None or status < 400 else code_of(body)
        is_right = status is not None and (200 <= status < 300 or 400 <= status < 500)
        is_right = is_right and (kind == "application/octet-stream" or is_json(body))
        with self.lock:
            self.answers[f"{status} {code}".strip()] += 1
            self.kinds[case.kind] += 1
            if not is_right:
                self.wrong.append(f"case {number} ({case.kind}): {status} {body[:200]!r}")


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def code_of(body: bytes) -> str:
    """The error's code; the Open Inference Protocol has none."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return "?"
    return error["code"] if isinstance(error, dict) else "v2"


def send(
    port: int, numbered: Iterator[tuple[int, Case]], lock: threading.Lock, tally: Tally
) -> None:
    """Send cases one after the other over one connection, until there are none left."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    while True:
        with lock:
            number, case = next(numbered, (-1, None))
        if case is None:
            break
        try:
            connection.request("POST", case.path, case.body, case.headers)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            tally.add(number, case, None, "", repr(error).encode())
            connection.close()
            continue
        tally.add(number, case, response.status, response.headers.get_content_type(), body)
    connection.close()


def memory(service: Service) -> dict[str, float]:
    """Resident MiB of the workers: now, and at most until now; of the largest."""
    workers = service.workers()
    return {
        "resident_mib": round(max(status_kib(pid, "VmRSS") for pid in workers) / 1024, 1),
        "peak_mib": round(max(status_kib(pid, "VmHWM") for pid in workers) / 1024, 1),
    }


def fuzz(count: int, seed: int) -> tuple[dict[str, object], list[str]]:
    """Send so many cases.

    Returns:
        What is reported, and what went wrong.
    """
    tally, lock = Tally(), threading.Lock()
    numbered = enumerate(cases(seed, count))
    with running(**SETTINGS) as service:
        before = service.workers()
        began = time.monotonic()
        stages = []
        for _ in range(PARTS):
            # Cases are made as they are sent, so memory here doesn't grow either.
            some = islice(numbered, -(-count // PARTS))
            threads = [
                threading.Thread(target=send, args=(service.port, some, lock, tally))
                for _ in range(CONNECTIONS)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            stages.append({"cases": sum(tally.answers.values()), **memory(service)})
        seconds = time.monotonic() - began
        wrong = list(tally.wrong)
        if service.workers() != before:
            wrong.append(f"workers {before} became {service.workers()}")
        wrong += [f"in the log: {line}" for line in failures_in(service.log)]
    growth = stages[-1]["resident_mib"] - stages[0]["resident_mib"]
    if growth > GROWTH_LIMIT_MIB:
        wrong.append(f"the largest worker grew by {growth:.0f} MiB")
    report: dict[str, object] = {
        "cases": sum(tally.answers.values()),
        "seed": seed,
        "seconds": round(seconds, 1),
        "answers": dict(tally.answers.most_common()),
        "kinds": dict(tally.kinds.most_common()),
        "wrong": wrong,
        "largest_worker": stages,
        "hardware": hardware(),
        "versions": versions(),
    }
    return report, wrong


def failures_in(log: Path) -> Iterator[str]:
    """Lines of the log that tell of a failure of ours."""
    for line in log.read_text(errors="replace").splitlines():
        if '"level": "error"' in line or '"level": "critical"' in line or "Traceback" in line:
            yield line[:500]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    report, wrong = fuzz(options.cases, options.seed)
    print(
        json.dumps(
            {k: report[k] for k in ("cases", "seconds", "answers", "largest_worker")}, indent=2
        )
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    for one in wrong[:20]:
        print(one)
    if wrong:
        raise SystemExit(f"{len(wrong)} things went wrong")


if __name__ == "__main__":
    main()
