"""The real service, as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from support.databases import wait_until

SERVE = (
    "from inkdigits.settings import Settings; from inkdigits.serving.gunicorn import serve; "
    "serve(Settings.from_env())"
)


class Service:
    """``inkdigits serve`` as a process of its own, that can be stopped and started again."""

    def __init__(self, folder: Path, ready: str, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ready = ready
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("INKDIGITS_")}
        self._environment = {
            **inherited,
            "PORT": str(self.port),
            "INKDIGITS_WORKERS": "1",
            "INKDIGITS_DATA_DIR": str(folder),
            **settings,
        }
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(self._answers, 120)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)

    def kill(self) -> None:
        """End the service and its workers at once, as a lost machine would."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(60)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "the service ended"
        try:
            with urllib.request.urlopen(self.url + self._ready, timeout=10):
                return True
        except (urllib.error.URLError, OSError):
            return False
