"""What is answered, and what is lost, while workers are killed and the model is replaced?

Clients send pictures over kept-alive connections. Every few seconds a worker is ended by SIGKILL.
Meanwhile the file at MODEL_PATH, which the service watches, is replaced three times: by another
model, by a damaged one, and by the first model again. Both models give the same digits with other
confidences, so every answer can be checked against the model that it names.

A request without an answer is excused only if a killed worker had its connection, or if that waited
in the kernel to be accepted when a worker was killed. Any other status than 200, an answer that its
model does not give, or an answer of the damaged model is a fault. The run ends when the last model
is in use.

With --calm nothing is killed or replaced. Then the memory of the workers and the latency are noted
ten times, and it is a fault if the largest worker ends more than GROWTH_LIMIT_MIB above its memory
after a fifth of the time.

    python benchmarks/chaos.py [--seconds 60] [--every 5] [--json benchmarks/chaos.json]
    python benchmarks/chaos.py --calm --seconds 600 [--json benchmarks/soak.json]
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mutations import seeds
from results import fail, options, percentile, write
from service import PATIENCE_S, Clients, Connection, Service, running, status_mib

from inkdigits.model.artifact import read_artifact, read_metadata, with_metadata, write_atomically
from inkdigits.reader import load

CONNECTIONS = 8
PICTURES = 30
TOLERANCE = 1e-6
POINTS, GROWTH_LIMIT_MIB = 10, 20
CLOSING_S = 0.25
"""A process that ends hides its sockets from /proc some time before the kernel has closed them."""
HEADERS = {"Content-Type": "application/octet-stream"}
Truth = dict[str, list[tuple[int | None, float]]]


def variant(name: str, temperature: float) -> bytes:
    """Return the shipped artifact under another name and with its temperature multiplied."""
    artifact = read_artifact()
    known = read_metadata(artifact)
    changed = replace(known, model_version=name, temperature=known.temperature * temperature)
    return with_metadata(artifact, changed)


class Answers:
    """What the clients were answered, and whether their models give that."""

    def __init__(self, pictures: list[bytes], truth: Truth) -> None:
        self._pictures, self._truth, self._lock = pictures, truth, threading.Lock()
        self.answered: Counter[str] = Counter()
        self.latest: deque[str] = deque(maxlen=50)
        self.wrong: list[str] = []
        self.lost: list[Lost] = []
        self.seconds: list[float] = []

    def ask(self, connection: Connection, choice: random.Random) -> None:
        """Send a picture and judge the answer."""
        number, began = choice.randrange(PICTURES), time.monotonic()
        try:
            status, _, body = connection.post("/predict", self._pictures[number], HEADERS)
            answer = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            lost = Lost(connection.own_port, connection.opening, connection.opened, repr(error))
            with self._lock:
                self.lost.append(lost)
            return
        version = answer.get("model_version", f"status {status}")
        digit, confidence = self._truth.get(version, [(None, -1.0)] * PICTURES)[number]
        difference = abs(answer.get("confidence", 2.0) - confidence)
        is_wrong = status != 200 or answer["prediction"] != digit or difference > TOLERANCE
        with self._lock:
            self.seconds.append(time.monotonic() - began)
            self.answered[version] += 1
            self.latest.append(version)
            if is_wrong:
                self.wrong.append(f"picture {number}: {digit} {confidence} expected, {answer}")


@dataclass(frozen=True)
class Lost:
    """A request without an answer: its connection's port, when that was opened, and the error."""

    port: int
    opening: float
    opened: float
    error: str


@dataclass
class Killed:
    """What died with a worker: connections by the client's port, or by when they were opened."""

    ports: set[int] = field(default_factory=set)
    began: float = 0.0
    ended: float = 0.0

    def excuses(self, lost: Lost) -> bool:
        """Return whether a connection was lost with the worker."""
        return lost.port in self.ports or (lost.opening <= self.ended and lost.opened >= self.began)


def kill(service: Service, choice: random.Random) -> Killed:
    """Kill a worker."""
    pid = choice.choice(service.workers() or [0])
    killed = Killed()
    if pid == 0:
        return killed
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, signal.SIGSTOP)
        # A stopped worker accepts nothing more, so its connections are the ones that it has now.
        while "State:\tT" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.001)
        killed.began = time.monotonic()
        killed.ports = service.connections(pid)
        os.kill(pid, signal.SIGKILL)
        while service.listens(pid):
            time.sleep(0.001)
        killed.ended = time.monotonic() + CLOSING_S
    return killed


def chaos(
    seconds: float, every: float, seed: int = 1, *, calm: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """Run it, and return what is reported and the faults."""
    choice, killed = random.Random(seed), list[Killed]()
    points: list[dict[str, float]] = []
    first, second = variant("chaos-a", 1.0), variant("chaos-b", 2.0)
    damaged = bytearray(first)
    damaged[len(damaged) // 2] ^= 1
    plan = [] if calm else [(0.2, second), (0.45, bytes(damaged)), (0.7, first)]
    expected = {"chaos-a"} if calm else {"chaos-a", "chaos-b"}
    pictures = choice.sample(seeds(), PICTURES)
    with tempfile.TemporaryDirectory() as folder:
        path, truth = Path(folder) / "model.onnx", {}
        for name, content in (("chaos-b", second), ("chaos-a", first)):
            write_atomically(path, content)
            read = load(path).predict_batch(pictures)
            truth[name] = [(p.digit, p.confidence) for p in read]
        with running(MODEL_PATH=str(path), INKDIGITS_WATCH="on") as service:
            answers = Answers(pictures, truth)
            clients = Clients(service.port, CONNECTIONS, answers.ask)
            began, passed = time.monotonic(), 0.0
            while passed < seconds or (set(answers.latest) != {"chaos-a"} and passed < PATIENCE_S):
                if plan and passed >= plan[0][0] * seconds:
                    write_atomically(path, plan.pop(0)[1])
                if calm and passed >= (len(points) + 1) * seconds / POINTS:
                    largest = max(status_mib(pid, "VmRSS") for pid in service.workers())
                    p99_ms = round(1000 * percentile(answers.seconds[-10_000:], 0.99), 2)
                    points.append({"seconds": passed, "largest_mib": largest, "p99_ms": p99_ms})
                if not calm and passed >= (len(killed) + 1) * every and passed < seconds:
                    killed.append(kill(service, choice))
                    # A worker that is killed while it tries a model does not make others try it.
                    service.process.send_signal(signal.SIGHUP)
                time.sleep(0.02)
                passed = time.monotonic() - began
            clients.stop()
            service.wait_for("GET", "/health/ready")
            workers = len(service.workers())
    unexcused = [str(lost) for lost in answers.lost if not any(one.excuses(lost) for one in killed)]
    wrong = answers.wrong + unexcused
    if set(answers.answered) != expected or set(answers.latest) != {"chaos-a"}:
        wrong.append(f"answers by model: {dict(answers.answered)}, last {set(answers.latest)}")
    if workers != 2:
        wrong.append(f"{workers} workers of 2 are left")
    if calm and (grown := points[-1]["largest_mib"] - points[1]["largest_mib"]) > GROWTH_LIMIT_MIB:
        wrong.append(f"the largest worker grew by {grown} MiB")
    times = [1000 * seconds for seconds in answers.seconds]
    report = {"seconds": round(passed, 1), "connections": CONNECTIONS, "kills": len(killed)}
    report |= {"answered": dict(answers.answered), "answers_wrong": len(answers.wrong)}
    report["lost_with_a_killed_worker"] = len(answers.lost) - len(unexcused)
    report["lost_otherwise"] = len(unexcused)
    report["latency_ms"] = {str(q): round(percentile(times, q), 2) for q in (0.5, 0.99, 1.0)}
    return {**report, "points": points, "wrong": wrong[:50]}, wrong


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5, help="seconds between two kills")
    parser.add_argument("--calm", action="store_true")
    chosen = parser.parse_args()
    report, wrong = chaos(chosen.seconds, chosen.every, calm=chosen.calm)
    print(json.dumps(report, indent=2))
    write(chosen.json, report)
    fail(wrong)


if __name__ == "__main__":
    main()
