"""A new model and new keys, used by a running service; and those that are not good, rejected."""

import contextlib
import json
import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.artifacts import corrupt, variant
from support.processes import PATIENCE, wait_until
from support.server import REAL, running

from inkdigits.model.artifact import ARTIFACT_NAME, read_artifact, write_atomically
from inkdigits.model.registry import Registry
from inkdigits.serving.api.keys import digest_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")

REJECTED = "the new model was rejected"


def version_of(service):
    status, answer = service.predict()
    assert status == 200
    return str(answer["model_version"])


def logged(service, message):
    entries = [json.loads(line) for line in service.lines]
    return [entry for entry in entries if entry["message"].startswith(message)]


def hang_up(service):
    service.process.send_signal(signal.SIGHUP)


def workers(service):
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return set(map(int, children.read_text().split()))


def test_watched_model_is_replaced_under_load_without_a_failed_request(tmp_path):
    path = variant(tmp_path / "model.onnx", "first")
    settings = {"MODEL_PATH": str(path), "INKDIGITS_WATCH": "on", "INKDIGITS_PAGE": "off"}
    with running(program=REAL, INKDIGITS_WORKERS="2", **settings) as service:
        is_over = threading.Event()

        def ask():
            seen = set()
            while not is_over.is_set():
                seen.add(version_of(service))
            return seen

        before = workers(service)
        with ThreadPoolExecutor() as pool:
            asking = [pool.submit(ask) for _ in range(2)]
            try:
                corrupt(path)
                wait_until(lambda: logged(service, REJECTED))
                variant(path, "second")
                wait_until(lambda: len(logged(service, "the new model is served")) == 2)
            finally:
                is_over.set()
        assert set.union(*(one.result() for one in asking)) == {"first", "second"}
        assert "was altered" in logged(service, REJECTED)[0]["error"]
        assert {version_of(service) for _ in range(8)} == {"second"}
        assert workers(service) == before


def test_sighup_has_the_model_looked_at_and_replaced_workers_start_with_the_last_good_one(tmp_path):
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


@pytest.fixture
def trying(tmp_path):
    """A service that tries a new model, which does not load while the second thing exists."""
    path, obstacle = tmp_path / "model.onnx", tmp_path / "obstacle"
    write_atomically(path, read_artifact())
    settings = {"MODEL_PATH": str(path), "INKDIGITS_PAGE": "off"}
    with running("--hang-if", str(obstacle), **settings) as service:
        obstacle.touch()
        write_atomically(path, read_artifact())
        hang_up(service)
        wait_until((tmp_path / "obstacle.seen").exists)
        yield service, obstacle


def test_model_that_never_loads_holds_up_neither_requests_nor_the_stop(trying):
    service, _ = trying
    assert service.predict()[0] == 200
    service.process.terminate()
    assert service.process.wait(PATIENCE) == 0


def test_worker_killed_while_it_tries_a_model_leaves_the_trial_to_the_next(trying):
    service, obstacle = trying
    for worker in workers(service):
        os.kill(worker, signal.SIGKILL)
    obstacle.unlink()
    wait_until(lambda: logged(service, "the new model is served"))


def test_keys_are_read_again_and_bad_ones_are_not_used(tmp_path):
    keys, reviewers = tmp_path / "keys", tmp_path / "reviewers"
    for path in (keys, reviewers):
        path.write_text(f"ada:{digest_of('a-key')}\n")
    files = {"INKDIGITS_API_KEYS_FILE": str(keys), "INKDIGITS_REVIEWERS_FILE": str(reviewers)}
    with running(TMPDIR=str(tmp_path), **files) as service:

        def status(key):
            with contextlib.closing(service.connect()) as connection:
                connection.request("GET", "/api", headers={"X-API-Key": key})
                return connection.getresponse().status

        keys.write_text("")
        hang_up(service)
        # In the parent, for workers that start later, and in the worker.
        wait_until(lambda: len(logged(service, "keys and certificate stay as they were")) == 2)
        assert status("a-key") == 200
        keys.write_text(f"bob:{digest_of('another')}\n")
        reviewers.write_text("operator:")
        hang_up(service)
        wait_until(lambda: len(logged(service, "keys and certificate stay as they were")) == 4)
        assert status("a-key") == 200
        reviewers.write_text(f"bob:{digest_of('another')}\n")
        hang_up(service)
        wait_until(lambda: (status("a-key"), status("another")) == (401, 200))
        shutil.rmtree(next(tmp_path.glob("inkdigits-run-*")))
        hang_up(service)
        wait_until(lambda: logged(service, "no new model is looked for"))
        assert status("another") == 200


def test_worker_that_is_replaced_starts_without_a_second_model_that_is_gone(tmp_path):
    path = variant(tmp_path / "second.onnx", "second")
    shadow = {"INKDIGITS_SHADOW": str(path), "INKDIGITS_SHADOW_SHARE": "1"}
    with running(program=REAL, INKDIGITS_PAGE="off", **shadow) as service:
        former = workers(service)
        path.unlink()
        for worker in former:
            os.kill(worker, signal.SIGKILL)

        def is_answered():
            with contextlib.suppress(OSError):
                return version_of(service)

        # Its first picture has it look for the second model.
        wait_until(is_answered)
        wait_until(lambda: logged(service, "a worker is without the second model"))


def test_promoted_model_that_rejects_too_much_is_rolled_back_by_the_service(tmp_path):
    registry = Registry(tmp_path / "models")
    # At 50 times the temperature no digit is likelier than not.
    for name, temperature in (("good", 1.0), ("bad", 50.0)):
        path = registry.folder / name / ARTIFACT_NAME
        variant(path, f"version-{name}", temperature)
    registry.promote("good", {})
    settings = {"MODEL_PATH": str(registry.folder / "current"), "INKDIGITS_WATCH": "on"}
    settings["INKDIGITS_DATA_DIR"] = str(tmp_path / "data")
    with running(program=REAL, INKDIGITS_WORKERS="2", **settings) as service:
        assert version_of(service) == "version-good"
        registry.promote("bad", {"watch": {"readings": 30, "max_rejected": 0.2}})
        wait_until(lambda: version_of(service) == "version-bad")
        wait_until(lambda: version_of(service) and registry.current == "good")
        wait_until(lambda: {version_of(service) for _ in range(8)} == {"version-good"})
        (line,) = logged(service, "the promoted model was rolled back")
        assert line["model_version"] == "version-good"
    assert "readings were rejected" in registry.history()[-1]["reason"]
