import os
import resource
import threading

import pytest
from support.fakes import FakeReader

from inkdigits.errors import ConfigError
from inkdigits.log.locks import file_lock
from inkdigits.model.artifact import ARTIFACT_NAME, seal
from inkdigits.serving import reload
from inkdigits.serving.reload import Reloader, RunFolder, stamp_of


class Worker:
    """One worker's part of it; a model whose bytes say "slow" takes until ``released``."""

    def __init__(self, folder, source, *, is_watching=True):
        self.served: str | None = None
        self.loaded: list[str] = []
        self.refreshed = 0
        self.released = threading.Event()
        doing = {"load": self.load, "use": self.use, "refresh": self.refresh}
        self.reloader = Reloader(folder, source, is_watching=is_watching, **doing)

    def load(self, path):
        reader = FakeReader()
        reader.model_version = path.read_bytes().partition(b"!")[0].decode()
        self.loaded.append(reader.model_version)
        if reader.model_version == "slow":
            self.released.wait(30)
        if reader.model_version == "bad":
            raise ConfigError("it reads nothing")
        if reader.model_version == "faulty":
            raise ZeroDivisionError("by zero")
        return reader

    def use(self, reader):
        self.served = reader.model_version

    def refresh(self):
        self.refreshed += 1

    def look(self, times=1):
        for _ in range(times):
            self.reloader.look()
        return self.served


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.onnx"
    put(path, "first")
    return path


@pytest.fixture
def folder(tmp_path, source):
    (tmp_path / "run").mkdir()
    made = RunFolder(tmp_path / "run")
    made.copy(source, stamp_of(source))
    made.publish(stamp_of(source))
    return made


def put(path, version):
    temporary = path.with_suffix(".new")
    temporary.write_bytes(seal(version.encode() + b"!") if isinstance(version, str) else version)
    temporary.replace(path)


def test_new_model_is_served_once_it_stays_as_it_is(folder, source):
    worker = Worker(folder, source)
    assert worker.look(3) is None
    put(source, "second")
    assert worker.look() is None
    put(source, "third")
    assert [worker.look(), worker.look()] == [None, "third"]
    assert worker.loaded == ["third"]
    assert worker.look(3) == "third"


@pytest.mark.parametrize("content", [seal(b"bad!"), b"no artifact"])
def test_model_that_is_not_good_is_rejected_once_until_somebody_asks(
    folder, source, content, caplog
):
    worker, other = Worker(folder, source), Worker(folder, source)
    put(source, content)
    assert worker.look(4) is other.look(4) is None
    said = ["the new model was rejected; the service keeps the present one"]
    assert [record.message for record in caplog.records] == said
    assert folder.model.read_bytes() == seal(b"first!")
    folder.ask_for_reload()
    worker.look(4)
    assert [record.message for record in caplog.records] == said * 2
    put(source, "second")
    assert worker.look(2) == "second"


def test_promoted_and_rolled_back_and_promoted_again(tmp_path, folder):
    """``models/current`` names one version after another, also one that was served before."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        put(tmp_path / name / ARTIFACT_NAME, name)
    current = tmp_path / "current"
    workers = [Worker(folder, current), Worker(folder, current)]
    for name in ("one", "two", "one", "two"):
        (tmp_path / "link").symlink_to(name)
        (tmp_path / "link").replace(current)
        assert [[w.look() for w in workers] for _ in range(3)][-1] == [name, name]


def test_worker_follows_the_one_that_has_proved_a_model(folder, source):
    workers = [Worker(folder, source) for _ in range(3)]
    put(source, "second")
    assert [worker.look(2) for worker in workers] == ["second"] * 3
    # One that starts now has it from the beginning.
    assert folder.model.read_bytes() == seal(b"second!")
    assert Worker(folder, source).look(3) is None
    assert [path.name for path in folder.path.glob("*-*.onnx")] == [folder.model.readlink().name]


def test_file_that_is_not_watched_is_looked_at_when_somebody_asks(folder, source):
    worker = Worker(folder, source, is_watching=False)
    put(source, "second")
    assert worker.look(4) is None
    folder.ask_for_reload()
    assert (worker.look(4), worker.refreshed) == ("second", 1)
    put(source, "third")
    assert worker.look(4) == "second"


def test_model_that_never_loads_leaves_the_present_one_and_makes_way_for_the_next(
    folder, source, monkeypatch, caplog
):
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


def test_model_that_loads_with_an_unknown_error_is_rejected_at_once_with_its_type(
    folder, source, caplog
):
    worker = Worker(folder, source)
    put(source, "faulty")
    assert worker.look(4) is None
    assert [record.fields["error"] for record in caplog.records] == ["ZeroDivisionError: by zero"]
    put(source, "second")
    assert worker.look(2) == "second"


def test_trial_whose_process_ends_is_repeated_once_by_another(folder, source):
    worker = Worker(folder, source, is_watching=False)
    put(source, "second")
    folder.ask_for_reload()
    with file_lock(folder.path / "trial.lock"):
        # Nobody else tries meanwhile, or takes the matter for settled.
        assert worker.look(4) is None
    # As a worker leaves it that is killed, whether others were asked too or it starts later.
    for later in (worker, Worker(folder, source, is_watching=False)):
        folder.trials_of(stamp_of(source)).write_bytes(b".")
        assert later.look(3) == "second"
        put(source, "second")


def test_full_disk_takes_no_new_model_but_a_reload_can_be_asked_for(folder, source):
    before, limits = folder.asked, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with pytest.raises(ConfigError, match=r"cannot be copied to .* TMPDIR"):
            folder.copy(source, "new")
        folder.ask_for_reload()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder.asked != before


def test_model_that_ends_two_processes_is_tried_again_when_somebody_asks(folder, source):
    put(source, "second")
    folder.trials_of(stamp_of(source)).write_bytes(b"..")
    assert Worker(folder, source).look(4) is None
    folder.ask_for_reload()
    assert Worker(folder, source).look(2) == "second"


def test_where_another_service_reads_only_keys_and_certificate_are_read_again(folder):
    worker = Worker(folder, None)
    folder.ask_for_reload()
    worker.look(3)
    assert (worker.refreshed, worker.loaded) == (1, [])


def test_stamp_changes_with_the_file(source):
    assert stamp_of(source.with_name("none.onnx")) == ""
    first = stamp_of(source)
    os.utime(source, ns=(0, 1))
    assert stamp_of(source) != first
