"""What a worker does about a new model, without a server around it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fakes import FakeReader

from inkdigits.errors import ConfigError
from inkdigits.model.artifact import seal
from inkdigits.serving import reload
from inkdigits.serving.reload import Reloader, RunFolder, stamp_of


class Worker:
    """One worker's part of it; a model whose bytes say "slow" takes until ``released``."""

    def __init__(self, folder: RunFolder, source: Path, *, is_watching: bool = True) -> None:
        self.served: str | None = None
        self.loaded: list[str] = []
        self.refreshed = 0
        self.released = threading.Event()
        self.reloader = Reloader(
            folder,
            source,
            is_watching=is_watching,
            load=self.load,
            use=self.use,
            refresh=self.refresh,
        )

    def load(self, path: Path) -> FakeReader:
        content = path.read_bytes()
        reader = FakeReader()
        reader.model_version = content[: content.index(b"!")].decode()
        self.loaded.append(reader.model_version)
        if reader.model_version == "slow":
            self.released.wait(30)
        if reader.model_version == "bad":
            raise ConfigError("it reads nothing")
        return reader

    def use(self, reader: FakeReader) -> None:
        self.served = reader.model_version

    def refresh(self) -> None:
        self.refreshed += 1

    def look(self, times: int = 1) -> str | None:
        for _ in range(times):
            self.reloader.look()
        return self.served


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.onnx"
    put(path, "first")
    return path


@pytest.fixture
def folder(tmp_path: Path, source: Path) -> Iterator[RunFolder]:
    (tmp_path / "run").mkdir()
    made = RunFolder(tmp_path / "run")
    stamp = stamp_of(source)
    made.copy(source, stamp)
    made.publish(stamp)
    return made


def put(path: Path, version: str, content: bytes | None = None) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(seal(version.encode() + b"!") if content is None else content)
    temporary.replace(path)


def test_new_model_is_served_once_it_stays_as_it_is(folder: RunFolder, source: Path) -> None:
    worker = Worker(folder, source)
    assert worker.look(3) is None
    put(source, "second")
    assert worker.look() is None
    put(source, "third")
    assert worker.look() is None
    assert worker.look() == "third"
    assert worker.loaded == ["third"]
    assert worker.look(3) == "third"


@pytest.mark.parametrize(
    ("version", "content"), [("bad", None), ("damaged", b"no artifact")], ids=["bad", "damaged"]
)
def test_model_that_is_not_good_is_rejected_once(
    folder: RunFolder,
    source: Path,
    version: str,
    content: bytes | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker, other = Worker(folder, source), Worker(folder, source)
    put(source, version, content)
    assert worker.look(4) is other.look(4) is None
    assert [record.message for record in caplog.records] == [
        "the new model was rejected; the service keeps the present one"
    ]
    assert folder.model.read_bytes() == seal(b"first!")
    put(source, "second")
    assert worker.look(2) == "second"


def test_worker_follows_the_one_that_has_proved_a_model(folder: RunFolder, source: Path) -> None:
    workers = [Worker(folder, source) for _ in range(3)]
    put(source, "second")
    for worker in workers:
        worker.look(2)
    assert [worker.served for worker in workers] == ["second"] * 3
    # One that starts now has it from the beginning.
    assert folder.model.read_bytes() == seal(b"second!")
    assert Worker(folder, source).look(3) is None
    assert [path.name for path in folder.path.glob("*-*.onnx")] == [folder.model.readlink().name]


def test_file_that_is_not_watched_is_looked_at_when_somebody_asks(
    folder: RunFolder, source: Path
) -> None:
    worker = Worker(folder, source, is_watching=False)
    put(source, "second")
    assert worker.look(4) is None
    folder.ask_for_reload()
    assert worker.look(4) == "second"
    assert worker.refreshed == 1
    put(source, "third")
    assert worker.look(4) == "second"


def test_rejected_model_is_tried_again_when_somebody_asks(folder: RunFolder, source: Path) -> None:
    worker = Worker(folder, source)
    put(source, "bad")
    worker.look(4)
    folder.ask_for_reload()
    worker.look(4)
    assert worker.loaded == ["bad", "bad"]


def test_model_that_never_loads_leaves_the_present_one_and_makes_way_for_the_next(
    folder: RunFolder,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(reload, "LOAD_TIMEOUT_S", 0.05)
    worker = Worker(folder, source)
    put(source, "slow")
    assert worker.look(4) is None
    assert "did not load within" in str(caplog.records[0].fields["error"])
    monkeypatch.setattr(reload, "LOAD_TIMEOUT_S", 30)
    put(source, "second")
    assert worker.look(2) == "second"
    worker.released.set()
    assert worker.look(2) == "second"


def test_model_that_ends_its_process_is_tried_once(folder: RunFolder, source: Path) -> None:
    put(source, "second")
    stamp = stamp_of(source)
    # As a worker leaves it that was killed while it loaded.
    assert folder.claim(f"tried-{stamp}-")
    assert Worker(folder, source).look(4) is None
    folder.ask_for_reload()
    successor = Worker(folder, source)
    successor.look(2)
    assert successor.served == "second"


def test_where_another_service_reads_only_keys_and_certificate_are_read_again(
    folder: RunFolder,
) -> None:
    worker = Worker(folder, None)  # type: ignore[arg-type]
    folder.ask_for_reload()
    worker.look(3)
    assert (worker.refreshed, worker.loaded) == (1, [])


def test_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert stamp_of(path) == ""
    path.write_bytes(b"one")
    first = stamp_of(path)
    os.utime(path, ns=(0, 1))
    assert stamp_of(path) != first
