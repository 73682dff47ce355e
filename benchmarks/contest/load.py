"""The load: wrk, which is C and costs a few microseconds a request, beside the server it loads.

A client in Python would take as much of the two cores as the server does. ``load.lua`` has wrk
compare every answer with the digit that was sent.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from contest.contenders import Contender

CONNECTIONS: Final = (1, 8, 64)
_SCRIPT: Final = Path(__file__).with_name("load.lua")
_MISTAKES: Final = ("wrong", "connect", "read", "write", "timeout")


class LoadError(Exception):
    """wrk isn't here, or failed."""


def wrk() -> str:
    """wrk's program.

    Raises:
        LoadError: it isn't installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("the load is made by wrk, which isn't installed: apt-get install wrk")
    return found


def run(
    contender: Contender, port: int, images: list[str], digit: int, connections: int, seconds: int
) -> dict[str, Any]:
    """Load a server and check what it answers.

    Args:
        contender: says how it is asked, and what a right answer is.
        port: on the loopback address.
        images: base64 of pictures of one digit, sent in turn.
        digit: that digit.
        connections: kept alive, each with one request at a time.
        seconds: how long.

    Returns:
        Requests answered rightly a second, milliseconds (p50, p95, p99, max), how many requests
        failed or were answered wrongly, and microseconds of CPU that wrk took for each.

    Raises:
        LoadError: wrk failed.
    """
    expected = digit if contender.constant is None else contender.constant
    bodies = "".join(contender.body.replace("<image>", image) + "\n" for image in images)
    command = [wrk(), "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{seconds}s", "--timeout", "10s", "--script", str(_SCRIPT)]
    command += [f"http://127.0.0.1:{port}", "--", "/dev/stdin", contender.path]
    command += [contender.pattern.replace("<digit>", str(expected))]
    before = _cpu_seconds()
    done = subprocess.run(command, input=bodies, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"wrk failed: {(done.stderr or done.stdout).strip()[-500:]}")
    found = parse(done.stdout)
    return {**found, "client_cpu_us": (_cpu_seconds() - before) * 1e6 / max(1, found["requests"])}


def _cpu_seconds() -> float:
    """CPU time of the processes that were waited for; while a server runs, of wrk alone."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parse(output: str) -> dict[str, Any]:
    """What ``run`` returns, from what wrk printed.

    Raises:
        LoadError: there is no line of results in it.
    """
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if len(lines) != 1:
        raise LoadError(f"wrk printed no result: {output.strip()[-500:]}")
    found = json.loads(lines[0].removeprefix("RESULT "))
    right = found["requests"] - found["wrong"]
    return {
        "requests_per_second": right / (found["microseconds"] / 1e6),
        **{name: found[f"{name}_us"] / 1000 for name in ("p50", "p95", "p99", "max")},
        "requests": found["requests"],
        "failed": sum(found[name] for name in _MISTAKES),
        "failures": {name: found[name] for name in _MISTAKES if found[name]},
    }
