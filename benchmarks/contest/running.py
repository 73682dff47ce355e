"""A contender's server as a process: started, waited for, weighed and stopped."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from contest.contenders import PEERS_FOLDER, Contender
from contest.environments import Environment
from contest.pictures import Pictures

# Seconds until a server that hasn't answered is given up.
_PATIENCE = 120
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl(2)


class ServerError(Exception):
    """A server didn't start, or answered wrongly; the message has the end of its log."""


def adopt_orphans() -> None:
    """Become the parent of whatever a server leaves behind, so that it is weighed and ended too."""
    if ctypes.CDLL(None, use_errno=True).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


class Server:
    """A running server, from ``with`` on until its end.

    Args:
        contender: what to start.
        environment: that it is installed in.
        work: a folder of its own.
        weights: file by kind of reader, see ``peers/reading.py``.
        pictures: one of which is the first to be read.
        fresh: whether the contender's ``setup`` has still to be run.

    Attributes:
        first_answer_s: seconds from the process's start to the first right answer.

    Raises:
        ServerError: it ended, or gave no right answer.
    """

    def __init__(
        self,
        contender: Contender,
        environment: Environment,
        work: Path,
        weights: dict[str, Path],
        pictures: Pictures,
        *,
        fresh: bool,
    ) -> None:
        self.contender = contender
        self._pictures = pictures
        ports = [free_port() for _ in range(3)]
        self.port = ports[0]
        self._words = {
            "<bin>": str(environment.folder / "bin"),
            "<peers>": str(PEERS_FOLDER),
            "<work>": str(work),
            **{f"<port{n or ''}>": str(port) for n, port in zip((0, 2, 3), ports, strict=True)},
        }
        work.mkdir(parents=True, exist_ok=True)
        for name, content in contender.files.items():
            (work / name).write_text(self._filled(content))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("INKDIGITS_") and name not in ("PYTHONPATH", "DATABASE_URL")
        }
        variables = {
            "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(work),
            "PORT": str(self.port),
            "READER": contender.reader,
            "WEIGHTS": str(weights["torch" if contender.reader == "torch" else "onnx"]),
            # Ours is the installed package; the peers' applications are a folder of modules.
            "PYTHONPATH": str(PEERS_FOLDER),
            "DO_NOT_TRACK": "1",
        }
        own = {name: self._filled(value) for name, value in contender.variables.items()}
        self._variables = inherited | variables | own
        self._work = work
        self._log = work / "log.txt"
        self.first_answer_s = 0.0
        if fresh:
            for command in contender.setup:
                self._set_up([self._filled(part) for part in command])

    def __enter__(self) -> Server:
        log = self._log.open("wb")
        self._others = set(_children(os.getpid()))
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [self._filled(part) for part in self.contender.command],
            cwd=self._work,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        try:
            self._wait_for_answer(began)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def check(self) -> int:
        """Ask for each picture once; returns how many weren't answered rightly."""
        wrong = 0
        with contextlib.closing(self._connect()) as connection:
            for digit in range(10):
                for image in self._pictures.of(digit)[:4]:
                    wrong += not self._asks(connection, digit, image)
        return wrong

    def memory_mb(self) -> dict[str, float]:
        """Megabytes (10^6 bytes) resident of all its processes.

        ``pss`` counts a page that n processes share 1/n times in each, so once; ``rss`` n times.
        """
        found = {"pss": 0, "rss": 0}
        for pid in self._pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                for name in found:
                    pages = re.search(rf"^{name}:\s+(\d+) kB", rollup, re.M | re.I)
                    found[name] += int(pages[1]) if pages else 0
        return {name: round(kib * 1024 / 1e6, 1) for name, kib in found.items()}

    def _filled(self, text: str) -> str:
        for word, value in self._words.items():
            text = text.replace(word, value)
        return text

    def _set_up(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=self._work,
            env=self._variables,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def _asks(self, connection: http.client.HTTPConnection, digit: int, image: str) -> bool:
        """Whether a picture is answered, and rightly."""
        body = self.contender.body.replace("<image>", image)
        connection.request("POST", self.contender.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read().decode("utf-8", "replace")
        return answer.status == 200 and bool(right(self.contender, digit).search(content))

    def _wait_for_answer(self, began: float) -> None:
        digit = 7
        image = self._pictures.of(digit)[0]
        while time.perf_counter() - began < _PATIENCE:
            if self._process.poll() is not None:
                raise ServerError(f"{self.contender.name} ended: {self._end_of_log()}")
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                contextlib.closing(self._connect()) as connection,
            ):
                if self._asks(connection, digit, image):
                    self.first_answer_s = time.perf_counter() - began
                    return
            time.sleep(0.01)
        raise ServerError(f"{self.contender.name} gave no right answer: {self._end_of_log()}")

    def _end_of_log(self) -> str:
        return self._log.read_text(errors="replace").strip()[-800:]

    def _end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        # What doesn't stop when asked, and what it left behind, which we have adopted.
        while below := list(self._pids()):
            for pid in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.01)
        self._process.poll()

    def _pids(self) -> Iterator[int]:
        """All its processes: our children since its start, and those below them."""
        for child in _children(os.getpid()):
            if child not in self._others:
                yield child
                yield from _descendants(child)


def right(contender: Contender, digit: int) -> re.Pattern[str]:
    """The contender's Lua pattern of a right answer as a regular expression."""
    expected = digit if contender.constant is None else contender.constant
    return re.compile(contender.pattern.replace("<digit>", str(expected)).replace("%", "\\"))


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(pid: int) -> Iterator[int]:
    """Processes that one has started or adopted, by whichever of its threads."""
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield from map(int, tasks.read_text().split())


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)
