"""The real Redis, as a process of its own that can be stopped and started again."""

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest
from support.processes import wait_until
from support.server import free_port


class Redis:
    """A server without a file, on a free port of this machine."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        program = shutil.which("redis-server") or pytest.skip("needs redis-server")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(self._accepts)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(60)

    def freeze(self) -> None:
        """Stop it where it is: it accepts connections, and answers nobody."""
        self.process.send_signal(signal.SIGSTOP)

    def _accepts(self) -> bool:
        assert self.process.poll() is None
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextlib.contextmanager
def running_redis() -> Iterator[Redis]:
    server = Redis()
    try:
        yield server
    finally:
        server.stop()
