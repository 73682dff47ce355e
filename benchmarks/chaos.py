"""Load, while workers are killed and the model is replaced: what is answered, and what is lost.

For some seconds clients send pictures over kept-alive connections. Every few seconds a worker is
ended by SIGKILL. Three times the file at MODEL_PATH is replaced and the service told by SIGHUP: by
another good model, by a damaged one, by a good one again. The two models give the same digits with
other confidences and names, so an answer tells which model it is from, and whether it is right. It
takes longer on a slow machine: until all three have been taken up or refused.

An answer is wrong if it isn't what the model that it names gives. A request that gets no answer is
excused only if its connection was one of the killed worker's: the worker is halted, its connections
are listed, and then it is killed. Anything else, and any status but 200, is a failure.

    python benchmarks/chaos.py [--seconds 60] [--every 5] [--json benchmarks/chaos.json]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from mutations import seeds
from service import PATIENCE_S, Service, running

from inkdigits.evaluation.environment import hardware, versions
from inkdigits.model.artifact import read_artifact, seal, write_atomically
from inkdigits.reader import load

CONNECTIONS = 8
CONFIDENCE_TOLERANCE = 1e-6
SETTINGS = {"INKDIGITS_WORKERS": "2", "INKDIGITS_LOG_LEVEL": "info"}
PICTURES = 30
HEADERS = {"Content-Type": "application/octet-stream"}


@dataclass
class Tally:
    """What happened to the requests; under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    answered: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    # Port of the connection, and what came of it.
    lost: list[tuple[int, str]] = field(default_factory=list)
    killed_ports: set[int] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)


def variant(name: str, temperature: float) -> bytes:
    """The shipped artifact under another name and with its temperature multiplied."""
    # Its seal is one more metadata entry, so ONNX reads it along.
    model = onnx.load_model_from_string(read_artifact())
    (sealed,) = (entry for entry in model.metadata_props if entry.key == "sha256")
    model.metadata_props.remove(sealed)
    for entry in model.metadata_props:
        if entry.key == "model_version":
            entry.value = json.dumps(name)
        elif entry.key == "temperature":
            entry.value = json.dumps(json.loads(entry.value) * temperature)
    return seal(model.SerializeToString())


def damaged(artifact: bytes) -> bytes:
    """The same with one bit turned."""
    content = bytearray(artifact)
    content[len(content) // 2] ^= 1
    return bytes(content)


def expected(path: Path, pictures: list[bytes]) -> list[tuple[int | None, float]]:
    """What an artifact gives: digit and confidence of each picture."""
    return [(p.digit, p.confidence) for p in load(path).predict_batch(pictures)]


def ask(
    port: int,
    pictures: list[bytes],
    truth: dict[str, list[tuple[int | None, float]]],
    is_over: threading.Event,
    tally: Tally,
    seed: int,
) -> None:
    """Send pictures over one connection at a time until it is over."""
    choice = random.Random(seed)
    connection: http.client.HTTPConnection | None = None
    own_port = 0
    while not is_over.is_set():
        number = choice.randrange(len(pictures))
        began = time.monotonic()
        try:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
                own_port = 0
                connection.connect()
                own_port = connection.sock.getsockname()[1]
            connection.request("POST", "/predict", pictures[number], HEADERS)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            with tally.lock:
                tally.lost.append((own_port, repr(error)))
            if connection is not None:
                connection.close()
            connection = None
            continue
        if connection.sock is None:
            # The service has said that it closes it.
            connection = None
        judge(response.status, answer, number, truth, tally, time.monotonic() - began)
    if connection is not None:
        connection.close()


def judge(
    status: int,
    answer: Any,
    number: int,
    truth: dict[str, list[tuple[int | None, float]]],
    tally: Tally,
    seconds: float,
) -> None:
    if status != 200:
        with tally.lock:
            tally.wrong.append(f"status {status}: {answer}")
        return
    version = answer["model_version"]
    digit, confidence = truth.get(version, [(None, -1.0)] * PICTURES)[number]
    is_right = answer["prediction"] == digit
    is_right = is_right and abs(answer["confidence"] - confidence) <= CONFIDENCE_TOLERANCE
    with tally.lock:
        tally.answered[version] += 1
        tally.seconds.append(seconds)
        if not is_right:
            tally.wrong.append(f"picture {number}: {digit} {confidence} expected, {answer}")


def kill(service: Service, tally: Tally, choice: random.Random) -> None:
    """End a worker, and note which connections it had."""
    workers = service.workers()
    if not workers:
        return
    pid = choice.choice(workers)
    try:
        os.kill(pid, signal.SIGSTOP)
        # Halted it takes up nothing more, so what it has now is what it dies with.
        while "State:\tT" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.001)
        ports = service.connections(pid)
    except (ProcessLookupError, FileNotFoundError):
        return  # it had ended by itself, as the workers of a former model do
    with tally.lock:
        tally.killed_ports |= ports
    os.kill(pid, signal.SIGKILL)


def chaos(seconds: float, every: float, seed: int = 1) -> tuple[dict[str, object], list[str]]:
    """Run it.

    Returns:
        What is reported, and what went wrong.
    """
    tally, choice = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        artifacts = {"chaos-a": variant("chaos-a", 1.0), "chaos-b": variant("chaos-b", 2.0)}
        pictures = choice.sample(seeds(), PICTURES)
        truth = {}
        for name, content in artifacts.items():
            write_atomically(path, content)
            truth[name] = expected(path, pictures)
        write_atomically(path, artifacts["chaos-a"])
        # What is taken up, and at which share of the time.
        plan = [
            (0.2, artifacts["chaos-b"]),
            (0.45, damaged(artifacts["chaos-a"])),
            (0.7, artifacts["chaos-a"]),
        ]
        with running(MODEL_PATH=str(path), **SETTINGS) as service:
            is_over = threading.Event()
            threads = [
                threading.Thread(
                    target=ask, args=(service.port, pictures, truth, is_over, tally, number)
                )
                for number in range(CONNECTIONS)
            ]
            for thread in threads:
                thread.start()
            began = time.monotonic()
            kills, told, settled = 0, 0, 0
            while (passed := time.monotonic() - began) < seconds or settled < len(plan):
                settled = service.logged("taken up") + service.logged("not taken up")
                if told < len(plan) and told == settled and passed >= plan[told][0] * seconds:
                    write_atomically(path, plan[told][1])
                    service.hang_up()
                    told += 1
                if passed >= (kills + 1) * every:
                    kill(service, tally, choice)
                    kills += 1
                if passed > seconds + PATIENCE_S:
                    break
                time.sleep(0.02)
            passed = time.monotonic() - began
            is_over.set()
            for thread in threads:
                thread.join()
            taken, refused = service.logged("taken up"), service.logged("not taken up")
            reasons = [
                json.loads(line)["error"].replace(str(path), "MODEL_PATH")
                for line in service.log.read_text().splitlines()
                if '"message": "not taken up' in line
            ]
            service.wait_until_ready()
            workers = len(service.workers())
    excused = [error for port, error in tally.lost if port in tally.killed_ports]
    wrong = list(tally.wrong)
    wrong += [
        f"lost without a kill: {error} on port {port}"
        for port, error in tally.lost
        if port not in tally.killed_ports
    ]
    if (taken, refused) != (2, 1):
        wrong.append(f"{taken} were taken up and {refused} refused: {reasons}")
    if set(tally.answered) != set(artifacts):
        wrong.append(f"answers are from {sorted(tally.answered)}")
    if workers != 2:
        wrong.append(f"{workers} workers are left of 2")
    if tally.seconds:
        times = sorted(tally.seconds)
        latency = {
            "median_ms": round(statistics.median(times) * 1000, 2),
            "p99_ms": round(times[int(0.99 * (len(times) - 1))] * 1000, 2),
            "max_ms": round(times[-1] * 1000, 2),
        }
    report: dict[str, object] = {
        "seconds": round(passed, 1),
        "connections": CONNECTIONS,
        "kills": kills,
        "models_taken_up": taken,
        "models_refused": refused,
        "refused_because": reasons,
        "answered": dict(tally.answered),
        "answers_wrong": len(tally.wrong),
        "lost_with_a_killed_worker": len(excused),
        "lost_otherwise": len(tally.lost) - len(excused),
        "latency": latency if tally.seconds else None,
        "wrong": wrong[:50],
        "hardware": hardware(),
        "versions": versions(),
    }
    return report, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=5, help="seconds between two kills")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if sys.platform != "linux":
        raise SystemExit("it looks at /proc, which Linux has")
    report, wrong = chaos(options.seconds, options.every)
    print(
        json.dumps({k: v for k, v in report.items() if k not in ("hardware", "versions")}, indent=2)
    )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if wrong:
        raise SystemExit(f"{len(wrong)} things went wrong")


if __name__ == "__main__":
    main()
