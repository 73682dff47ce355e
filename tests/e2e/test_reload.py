"""A new model and new keys, used by a running service; and those that are not good, rejected."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from support.processes import PATIENCE, wait_until
from support.server import REAL, Service, running

from inkdigits.model.artifact import read_artifact, write_atomically
from inkdigits.serving.api.keys import digest_of

pytest.importorskip("onnx")

from support.artifacts import corrupt, variant

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")

REJECTED = "the new model was rejected"


def version_of(service: Service) -> str:
    status, answer = service.predict()
    assert status == 200
    return str(answer["model_version"])


def logged(service: Service, message: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in service.lines]
    return [entry for entry in entries if entry["message"].startswith(message)]


def hang_up(service: Service) -> None:
    service.process.send_signal(signal.SIGHUP)


def workers(service: Service) -> set[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return set(map(int, children.read_text().split()))


def test_watched_model_is_replaced_under_load_without_a_failed_request(tmp_path: Path) -> None:
    path = variant(tmp_path / "model.onnx", "first")
    settings = {"MODEL_PATH": str(path), "INKDIGITS_WATCH": "on", "INKDIGITS_PAGE": "off"}
    with running(program=REAL, INKDIGITS_WORKERS="2", **settings) as service:
        seen: set[str] = set()
        failures: list[BaseException] = []
        is_over = threading.Event()

        def ask() -> None:
            try:
                while not is_over.is_set():
                    seen.add(version_of(service))
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        asking = [threading.Thread(target=ask) for _ in range(2)]
        for thread in asking:
            thread.start()
        before = workers(service)
        try:
            corrupt(path)
            wait_until(lambda: bool(logged(service, REJECTED)))
            variant(path, "second")
            wait_until(lambda: len(logged(service, "the new model is served")) == 2)
        finally:
            is_over.set()
            for thread in asking:
                thread.join()
        assert failures == []
        assert seen == {"first", "second"}
        assert "was altered" in logged(service, REJECTED)[0]["error"]
        assert {version_of(service) for _ in range(8)} == {"second"}
        assert workers(service) == before


def test_sighup_has_the_model_looked_at_and_replaced_workers_start_with_the_last_good_one(
    tmp_path: Path,
) -> None:
    path = variant(tmp_path / "model.onnx", "first")
    with running(program=REAL, MODEL_PATH=str(path), INKDIGITS_PAGE="off") as service:
        variant(path, "second")
        assert version_of(service) == "first"
        hang_up(service)
        wait_until(lambda: version_of(service) == "second")
        corrupt(path)
        hang_up(service)
        wait_until(lambda: bool(logged(service, REJECTED)))
        for worker in workers(service):
            os.kill(worker, signal.SIGKILL)
        wait_until(service.is_ready)
        assert version_of(service) == "second"
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
    assert "Traceback" not in "".join(service.lines)


def test_model_that_never_loads_holds_up_neither_requests_nor_the_stop(tmp_path: Path) -> None:
    path, obstacle = tmp_path / "model.onnx", tmp_path / "obstacle"
    write_atomically(path, read_artifact())
    settings = {"MODEL_PATH": str(path), "INKDIGITS_PAGE": "off"}
    with running("--hang-if", str(obstacle), **settings) as service:
        obstacle.touch()
        write_atomically(path, read_artifact())
        hang_up(service)
        wait_until((tmp_path / "obstacle.seen").exists)
        assert service.predict()[0] == 200
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0


def test_keys_are_read_again_and_bad_ones_are_not_used(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ada:{digest_of('a-key')}\n")
    with running(INKDIGITS_API_KEYS_FILE=str(keys)) as service:

        def status(key: str) -> int:
            with contextlib.closing(service.connect()) as connection:
                connection.request("GET", "/api", headers={"X-API-Key": key})
                return connection.getresponse().status

        keys.write_text("")
        hang_up(service)
        # In the parent, for workers that start later, and in the worker.
        wait_until(lambda: len(logged(service, "keys and certificate stay as they were")) == 2)
        assert status("a-key") == 200
        keys.write_text(f"bob:{digest_of('another')}\n")
        hang_up(service)
        wait_until(lambda: (status("a-key"), status("another")) == (401, 200))
