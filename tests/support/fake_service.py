"""Serves a FakeReader with the real Gunicorn: ``python -m support.fake_service [--delay S] …``.

The tests of the server start it as a process of its own; settings come from the environment.
"""

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

from support.fakes import FakeReader

from inkdigits.errors import ArtifactNotFoundError, InkdigitsError
from inkdigits.serving import gunicorn as server
from inkdigits.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--fail", choices=["at start", "silently", "in workers"])
    parser.add_argument("--read-timeout", type=int, default=server.READ_TIMEOUT_S)
    parser.add_argument("--hang-if", type=Path, help="loading takes for ever while this exists")
    options = parser.parse_args()
    server.READ_TIMEOUT_S = options.read_timeout

    def load(settings: Settings) -> FakeReader:
        if options.fail == "silently":
            os._exit(9)
        # The process that tries the model is one of multiprocessing's; a worker is not.
        in_worker = multiprocessing.parent_process() is None
        if options.fail == "at start" or (options.fail and in_worker):
            raise ArtifactNotFoundError("no artifact at models/missing.onnx")
        while options.hang_if is not None and options.hang_if.exists():
            options.hang_if.with_suffix(".seen").touch()
            time.sleep(0.1)
        reader = FakeReader(delay=options.delay)
        reader.model_version = f"fake-{os.getpid()}"
        return reader

    try:
        server.serve(Settings.from_env(), load)
    except InkdigitsError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
