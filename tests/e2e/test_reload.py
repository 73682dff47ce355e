"""A new model, taken up by a running service; and one that can't be, which isn't."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from support.server import REAL, Service, running, wait_until

from inkdigits.errors import ArtifactError, ConfigError
from inkdigits.model.artifact import read_artifact, write_atomically
from inkdigits.serving.api.keys import digest_of
from inkdigits.serving.reload import Served, Watch
from inkdigits.settings import Settings

pytest.importorskip("onnx")

from support.artifacts import corrupt, variant

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")


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


def test_sighup_takes_a_good_model_up_and_refuses_a_damaged_one(tmp_path: Path) -> None:
    path = variant(tmp_path / "model.onnx", "first")
    with running(program=REAL, MODEL_PATH=str(path), INKDIGITS_PAGE="off") as service:
        assert version_of(service) == "first"
        corrupt(path)
        hang_up(service)
        wait_until(lambda: bool(logged(service, "not taken up")))
        assert "was altered" in logged(service, "not taken up")[0]["error"]
        assert version_of(service) == "first"
        # One that dies now is replaced by one with the model that was good.
        for worker in workers(service):
            os.kill(worker, signal.SIGKILL)
        assert version_of(service) == "first"
        variant(path, "second")
        hang_up(service)
        wait_until(lambda: bool(logged(service, "taken up")))
        assert version_of(service) == "second"
        service.process.terminate()
        assert service.process.wait(60) == 0
    assert "Traceback" not in "".join(service.lines)


def test_watched_model_is_taken_up_by_itself(tmp_path: Path) -> None:
    path = variant(tmp_path / "model.onnx", "first")
    settings = {"MODEL_PATH": str(path), "INKDIGITS_WATCH": "on", "INKDIGITS_PAGE": "off"}
    with running(program=REAL, **settings) as service:
        corrupt(path)
        wait_until(lambda: bool(logged(service, "not taken up")))
        assert version_of(service) == "first"
        variant(path, "second")
        wait_until(lambda: version_of(service) == "second")


def test_every_worker_has_a_socket_of_its_own_after_a_reload() -> None:
    with running(INKDIGITS_WORKERS="2") as service:
        # It answers as soon as the first is ready.
        wait_until(lambda: len(workers(service)) == 2)
        before = workers(service)
        hang_up(service)
        wait_until(lambda: bool(logged(service, "taken up")))
        wait_until(lambda: len(workers(service)) == 2 and not workers(service) & before)
        # On a socket without a worker a connection would wait for ever.
        for _ in range(20):
            assert service.predict()[0] == 200


def test_workers_go_on_if_those_that_were_to_replace_them_cannot_start(tmp_path: Path) -> None:
    obstacle = tmp_path / "obstacle"
    with running("--fail-if", str(obstacle), INKDIGITS_WORKERS="2") as service:
        # It answers as soon as the first is ready.
        wait_until(lambda: len(workers(service)) == 2)
        before = workers(service)
        obstacle.touch()
        hang_up(service)
        wait_until(lambda: bool(logged(service, "not taken up")))
        assert workers(service) == before
        assert service.predict()[0] == 200
        obstacle.unlink()
        hang_up(service)
        wait_until(lambda: bool(logged(service, "taken up")))
        assert service.predict()[0] == 200


def test_keys_that_cannot_be_used_are_not_taken_up(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"ada:{digest_of('a-key')}\n")
    with running(INKDIGITS_API_KEYS_FILE=str(keys)) as service:

        def status(key: str) -> int:
            with contextlib.closing(service.connect()) as connection:
                connection.request("GET", "/api", headers={"X-API-Key": key})
                return connection.getresponse().status

        keys.write_text("")
        hang_up(service)
        wait_until(lambda: bool(logged(service, "not taken up")))
        assert status("a-key") == 200
        keys.write_text(f"bob:{digest_of('another')}\n")
        hang_up(service)
        wait_until(lambda: bool(logged(service, "taken up")))
        assert (status("a-key"), status("another")) == (401, 200)


def test_what_is_served_is_a_copy_that_replaces_the_former_one_only_if_it_is_good(
    tmp_path: Path,
) -> None:
    path, folder = tmp_path / "model.onnx", tmp_path / "own"
    write_atomically(path, read_artifact())
    from inkdigits.serving.gunicorn import load_reader

    settings = Settings(model_path=path, page="off")
    served = Served(settings, folder, load_reader)
    first = served.settings.model_path
    assert first is not None
    assert first.parent == folder
    corrupt(path)
    with pytest.raises(ArtifactError, match="altered"):
        served.renew()
    assert served.settings.model_path == first
    assert [first] == list(folder.iterdir())
    variant(path, "second")
    served.renew()
    assert served.model_version == "second"
    served.go_back()
    assert served.settings.model_path == first
    assert [first] == list(folder.iterdir())
    served.renew()
    served.settle()
    assert [served.settings.model_path] == list(folder.iterdir())
    assert served.model_version == "second"


def test_setting_that_cannot_be_used_is_an_error_before_anything_is_copied(tmp_path: Path) -> None:
    settings = Settings(tls_key=tmp_path / "key.pem")
    with pytest.raises(ConfigError, match="needed together"):
        Served(settings, tmp_path, lambda _: pytest.fail("it was loaded"))
    assert not list(tmp_path.iterdir())


def test_watch_tells_of_a_replaced_file_once_and_not_while_it_is_being_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"one")
    watch = Watch(path)
    assert not watch.has_changed()
    path.write_bytes(b"one and")
    assert not watch.has_changed()
    path.write_bytes(b"one and a half")
    assert not watch.has_changed()
    assert watch.has_changed()
    assert not watch.has_changed()
    path.unlink()
    assert [watch.has_changed() for _ in range(3)] == [False] * 3
    path.write_bytes(b"three")
    assert [watch.has_changed() for _ in range(3)] == [False, True, False]
