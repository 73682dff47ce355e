"""The real Gunicorn, as a process of its own on a free port of the loopback interface."""

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
from collections.abc import Iterator
from typing import Any

from support.fakes import drawn_digit
from support.processes import PATIENCE, wait_until
from support.repository import TESTS

FAKE = ["-m", "support.fake_service"]
REAL = [
    "-c",
    "from inkdigits.settings import Settings; from inkdigits.serving.gunicorn import serve; "
    "serve(Settings.from_env())",
]
# One for all services of a run of the tests, which keep nothing that another would mind.
DATA = tempfile.TemporaryDirectory(prefix="inkdigits-")


class Site:
    """What answers on a port of this machine, and how to talk to it."""

    def __init__(
        self, port: int, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
    ) -> None:
        self.port, self.tls, self.address = port, tls, address

    def connect(self) -> http.client.HTTPConnection:
        kind: Any = http.client.HTTPConnection
        how: dict[str, Any] = {}
        if self.tls is not None:
            kind, how = http.client.HTTPSConnection, {"context": self.tls}
        how["source_address"] = (self.address, 0)
        return kind("127.0.0.1", self.port, timeout=PATIENCE, **how)

    def raw(self, sent: bytes = b"") -> socket.socket:
        """Return a connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        connection.sendall(sent)
        return connection

    def ask(self, method: str = "GET", path: str = "/health", **how: Any) -> tuple[int, Any]:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, **how)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def predict(self) -> tuple[int, Any]:
        return self.send(drawn_digit())

    def send(self, picture: bytes) -> tuple[int, Any]:
        return self.ask("POST", "/predict", body=picture, headers={"Content-Type": "image/png"})


class Service(Site):
    """A service as a process of its own, that can be stopped and started again."""

    def __init__(self, *arguments: str, program=FAKE, tls=None, **settings: str) -> None:
        super().__init__(free_port(), tls)
        self.lines: list[str] = []
        self._command = [sys.executable, *program, *arguments]
        self._environment = environment(self.port, **settings)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reading = threading.Thread(target=self._collect)
        self._reading.start()
        try:
            wait_until(self.is_ready)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reading.join()

    def kill(self) -> None:
        """End the service and its workers at once, as a lost machine would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, "\n".join(self.lines)
        try:
            return self.ask(path="/health/ready")[0] == 200
        except (OSError, http.client.HTTPException):
            # Where nobody listens, a connection may be given the same port, and reach itself.
            return False

    def _collect(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(port: int, **settings: str) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("INKDIGITS_")}
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "PORT": str(port),
        "INKDIGITS_WORKERS": "1",
        "INKDIGITS_DATA_DIR": DATA.name,
        **settings,
    }


@contextlib.contextmanager
def running(*arguments: str, **how: Any) -> Iterator[Service]:
    service = Service(*arguments, **how)
    try:
        yield service
    finally:
        service.stop()


def run_to_its_end(
    port: int, *arguments: str, program=FAKE, **settings: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *program, *arguments]
    how = {"capture_output": True, "text": True, "timeout": PATIENCE}
    return subprocess.run(command, env=environment(port, **settings), **how, check=False)
