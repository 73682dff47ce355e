"""The real service as a process of its own, for the scripts beside this one; Linux only."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 120
# A state of /proc/net/tcp.
LISTENING = "0A"


class Service:
    """A running service.

    Attributes:
        process: the parent of the workers.
        port: on 127.0.0.1.
        log: file with its standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def workers(self) -> list[int]:
        """Process ids of the workers that there are now, of two or more.

        A worker has one listening socket. The process that tries a new model has its parent's.
        """
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = map(int, task.read_text().split())
        return sorted(pid for pid in children if self._listeners(pid) == 1)

    def connections(self, pid: int) -> set[int]:
        """The clients' ports of the connections that a process has taken up."""
        return {remote for remote, state in self._sockets(pid) if state != LISTENING}

    def _listeners(self, pid: int) -> int:
        return sum(state == LISTENING for _, state in self._sockets(pid))

    def _sockets(self, pid: int) -> list[tuple[int, str]]:
        """The other end's port, and the state, of a process's sockets on the service's port."""
        inodes = set()
        try:
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    target = str(link.readlink())
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
            lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            return []  # it has ended
        rows = [line.split() for line in lines]
        return [
            (int(row[2].partition(":")[2], 16), row[3])
            for row in rows
            if row[9] in inodes and int(row[1].partition(":")[2], 16) == self.port
        ]

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"the service ended:\n{self.log.read_text()[-2000:]}")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
            try:
                connection.request("GET", "/health/ready")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        raise SystemExit("the service isn't ready")

    def logged(self, message: str) -> int:
        """How many lines of the log have a message that begins so."""
        return self.log.read_text(errors="replace").count(f'"message": "{message}')

    def hang_up(self) -> None:
        """Have it take up what is at MODEL_PATH."""
        self.process.send_signal(signal.SIGHUP)


def status_kib(pid: int, name: str) -> int:
    """A figure of /proc/PID/status in KiB: VmRSS is resident now, VmHWM was at most."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


@contextmanager
def running(**settings: str) -> Iterator[Service]:
    """Start the service with these variables, on a free port; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="inkdigits-") as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        log = Path(folder) / "log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("INKDIGITS_")}
        environment = {
            **inherited,
            "PORT": str(port),
            "INKDIGITS_DATA_DIR": folder,
            "INKDIGITS_PAGE": "off",
            "INKDIGITS_LOG_FORMAT": "json",
            **settings,
        }
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "inkdigits", "serve"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
            )
        service = Service(process, port, log)
        try:
            service.wait_until_ready()
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)
