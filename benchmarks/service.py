"""A server as a process of its own, watched through /proc. The scripts beside this one share it."""

from __future__ import annotations

import http.client
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import urllib3

PATIENCE_S = 120
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LISTENING = "0A"
"""A state in /proc/net/tcp."""


class Service:
    """A running server on 127.0.0.1.

    ``process`` was started, and its children are the workers. ``log`` has its standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def workers(self) -> list[int]:
        """Return the process ids of the children that listen on the port."""
        return sorted(pid for pid in _children(self.process.pid) if self.listens(pid))

    def listens(self, pid: int) -> bool:
        """Return whether a process listens on the port."""
        return LISTENING in (state for _, state in self._sockets(pid))

    def connections(self, pid: int) -> set[int]:
        """Return the clients' ports of a process's connections, and of those not accepted yet.

        The kernel does not say which process a connection waits for that is not accepted yet.
        """
        return {remote for remote, state in self._sockets(pid, "0") if state != LISTENING}

    def _sockets(self, pid: int, *inode: str) -> list[tuple[int, str]]:
        """The other end's port and the state of a process's sockets, and of those with an inode."""
        inodes = set(inode)
        try:
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
            lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return []  # The process has ended.
        rows = [line.split() for line in lines]
        return [
            (int(row[2].partition(":")[2], 16), row[3])
            for row in rows
            if row[9] in inodes and int(row[1].partition(":")[2], 16) == self.port
        ]

    def wait_for(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        """Repeat a request until it is answered with 200, and return the answer's body."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended:\n{self.log.read_text()[-2000:]}")
            with suppress(urllib3.exceptions.HTTPError):
                url, headers = f"http://127.0.0.1:{self.port}{path}", {"Content-Type": kind}
                given = {"body": body, "headers": headers if kind else {}, "timeout": PATIENCE_S}
                response = urllib3.request(method, url, retries=False, **given)
                if response.status == 200:
                    return response.data
            time.sleep(0.005)
        raise SystemExit(f"no answer to {path}:\n{self.log.read_text()[-2000:]}")

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all processes, with those of children that have ended."""
        total = 0
        for pid in tree(self.process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15]))  # user, system, and both of ended children
        return total / TICKS_PER_S

    def resident_mb(self) -> float:
        """Return the resident megabytes (10^6 bytes) of all processes; shared pages count once."""
        total = 0
        for pid in tree(self.process.pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                total += _kib(f"/proc/{pid}/smaps_rollup", "Pss")
        return total * 1024 / 1e6


class Connection(http.client.HTTPConnection):
    """A kept-alive connection that knows its own port, and when it was opened."""

    own_port, opening, opened = 0, 0.0, 0.0

    def connect(self) -> None:
        self.own_port, self.opening, self.opened = 0, time.monotonic(), float("inf")
        super().connect()
        self.own_port, self.opened = self.sock.getsockname()[1], time.monotonic()

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        """Return status, type and body of an answer; OSError or HTTPException if there is none."""
        try:
            # A service may answer, and close, before it has taken the whole of a body.
            with suppress(BrokenPipeError, ConnectionResetError):
                self.request("POST", path, body, headers)
            response = self.getresponse()
            return response.status, response.headers.get_content_type(), response.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise


class Clients:
    """Threads with a connection each, which take step after step until one returns False."""

    def __init__(
        self, port: int, count: int, step: Callable[[Connection, random.Random], object]
    ) -> None:
        self._is_over = threading.Event()

        def run(number: int) -> None:
            connection = Connection("127.0.0.1", port, timeout=PATIENCE_S)
            choice = random.Random(number)
            while not self._is_over.is_set() and step(connection, choice) is not False:
                pass
            connection.close()

        self._pool = ThreadPoolExecutor(count)
        self._clients = [self._pool.submit(run, number) for number in range(count)]

    def wait(self) -> None:
        for client in self._clients:
            client.result()
        self._pool.shutdown()

    def stop(self) -> None:
        self._is_over.set()
        self.wait()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, tasks.read_text().split())
    return found


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all processes below it."""
    yield pid
    for child in _children(pid):
        yield from tree(child)


def status_mib(pid: int, name: str) -> float:
    """Return a figure of /proc/PID/status: VmRSS is resident now, VmHWM is the peak."""
    return round(_kib(f"/proc/{pid}/status", name) / 1024, 1)


def _kib(path: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(path).read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, **variables: str) -> Iterator[Service]:
    """Start a server with these environment variables, and stop it with all its processes."""
    with tempfile.TemporaryDirectory(prefix="inkdigits-") as folder:
        log = Path(folder) / "log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("INKDIGITS_")}
        own = {"INKDIGITS_DATA_DIR": folder, "INKDIGITS_LOG_FORMAT": "json"}
        with log.open("wb") as stream:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": stream}
            given = {"env": {**inherited, **own, **variables}, "start_new_session": True}
            process = subprocess.Popen(command, **streams, **given)
        try:
            yield Service(process, port, log)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


@contextmanager
def running(**settings: str) -> Iterator[Service]:
    """Start `inkdigits serve` without the page and with two workers, and wait until it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "inkdigits", "serve", "--port", str(port)]
    fixed = {"INKDIGITS_PAGE": "off", "INKDIGITS_WORKERS": "2"}
    with started(command, port, **fixed, **settings) as service:
        service.wait_for("GET", "/health/ready")
        # One of them answers before the other one listens.
        while len(service.workers()) < 2 and service.process.poll() is None:
            time.sleep(0.05)
        yield service
