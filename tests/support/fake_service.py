"""Serves a FakeReader with the real Gunicorn: ``python -m support.fake_service [--delay S] …``.

The tests of the server start it as a process of its own; settings come from the environment.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

from support.fakes import FakeReader

from inkdigits.decision.prediction import Prediction
from inkdigits.errors import ArtifactNotFoundError, InkdigitsError
from inkdigits.serving import gunicorn as server
from inkdigits.serving import inline_requests as at_once
from inkdigits.settings import Settings
from inkdigits.types import Picture


class NamingReader(FakeReader):
    """Its answers say which thread has read."""

    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        prediction = super().predict(picture, risk=risk)
        return replace(prediction, model_version=threading.current_thread().name)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--fail", choices=["at start", "silently", "in workers"])
    parser.add_argument("--read-timeout", type=int, default=server.READ_TIMEOUT)
    parser.add_argument("--fail-if", type=Path, help="workers can't load while this file is there")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--quick", type=float, default=at_once.QUICK_S)
    parser.add_argument("--name-thread", action="store_true", help="as the model's version")
    options = parser.parse_args()
    server.READ_TIMEOUT = options.read_timeout
    at_once.QUICK_S = options.quick
    ordinary = server.gunicorn_options
    server.gunicorn_options = lambda settings: {
        **ordinary(settings), "worker_connections": options.connections
    }  # fmt: skip

    def load(settings: Settings) -> FakeReader:
        if options.fail == "silently":
            os._exit(9)
        # The process that tries the model is one of multiprocessing's; a worker isn't.
        in_worker = multiprocessing.parent_process() is None
        if options.fail == "at start" or (options.fail and in_worker):
            raise ArtifactNotFoundError("no artifact at models/missing.onnx")
        if in_worker and options.fail_if is not None and options.fail_if.exists():
            raise ArtifactNotFoundError("it was there a moment ago")
        if options.name_thread and in_worker:
            return NamingReader(delay=options.delay)
        reader = FakeReader(delay=options.delay)
        reader.model_version = f"fake-{os.getpid()}"
        return reader

    try:
        server.serve(Settings.from_env(), load)
    except InkdigitsError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
