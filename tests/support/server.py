"""The real Gunicorn, as a process of its own on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.fakes import drawn_digit
from support.repository import TESTS

# How long a test waits for what must happen; never how fast it must be.
PATIENCE = 60.0


@dataclass
class Service:
    """A running service and how to talk to it."""

    process: subprocess.Popen[str]
    port: int
    lines: list[str] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def connect(self) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=PATIENCE, context=self.tls
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, method: str = "GET", path: str = "/health", **how: Any) -> tuple[int, Any]:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, **how)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def predict(self) -> tuple[int, Any]:
        return self.send(drawn_digit())

    def send(self, picture: bytes) -> tuple[int, Any]:
        return self.ask("POST", "/predict", body=picture, headers={"Content-Type": "image/png"})

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "\n".join(self.lines)
        try:
            return self.ask(path="/health/ready")[0] == 200
        except OSError:
            return False

    def collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it didn't happen"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


FAKE = ["-m", "support.fake_service"]
REAL = [
    "-c",
    "from inkdigits.settings import Settings; from inkdigits.serving.gunicorn import serve; "
    "serve(Settings.from_env())",
]


# One for all services of a run of the tests, which keep nothing that another would mind.
DATA = tempfile.TemporaryDirectory(prefix="inkdigits-")


def environment(port: int, **settings: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("INKDIGITS_")}
    tests = str(TESTS)
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    return {
        **inherited,
        "PYTHONPATH": path,
        "PORT": str(port),
        "INKDIGITS_WORKERS": "1",
        "INKDIGITS_DATA_DIR": DATA.name,
        **settings,
    }


@contextlib.contextmanager
def running(
    *arguments: str,
    program: Sequence[str] = FAKE,
    tls: ssl.SSLContext | None = None,
    **settings: str,
) -> Iterator[Service]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, *program, *arguments],
        env=environment(port, **settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    service = Service(process, port, tls=tls)
    reading = threading.Thread(target=service.collect)
    reading.start()
    try:
        wait_until(service.is_ready)
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        reading.join()
        assert process.stderr is not None
        process.stderr.close()


def run_to_its_end(
    port: int, *arguments: str, program: Sequence[str] = FAKE, **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env=environment(port, **settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
