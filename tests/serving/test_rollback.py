"""A promoted model that does badly is rolled back: when, once, and by whom."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.artifacts import variant
from support.databases import opened, sqlite_url

from inkdigits.errors import RegistryError
from inkdigits.model.artifact import ARTIFACT_NAME
from inkdigits.model.registry import Registry
from inkdigits.serving.monitoring.metrics import Readings
from inkdigits.serving.rollback import RollbackWatch, _broken_limit

WATCH = {"readings": 100, "max_rejected": 0.1, "max_latency_ms": 20}


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    for name in ("one", "two"):
        variant(folder / name / ARTIFACT_NAME, f"version-{name}")
    registry = Registry(folder)
    registry.promote("one", {})
    return registry


@dataclass
class Replica:
    """A replica of a service, which has read so much with each model."""

    folder: Path
    store: object = None
    read: dict = field(default_factory=dict)
    reloads: int = 0

    def __post_init__(self):
        self.watch = RollbackWatch(self.folder, lambda: dict(self.read), self.reload, self.store)

    def reload(self):
        self.reloads += 1


@pytest.mark.parametrize(
    ("read", "broken"),
    [
        (Readings(100, 10, 2.0), False),
        (Readings(11, 11, 0.0), True),
        (Readings(90, 11, 0.0), True),
        (Readings(50, 0, 2.1), True),
        (Readings(1000, 100, 20.0), False),
        (Readings(1000, 101, 20.0), True),
    ],
)
def test_a_limit_is_broken_when_the_first_readings_cannot_keep_it(read, broken):
    assert (_broken_limit(WATCH, read) is not None) is broken
    assert _broken_limit({"readings": 100}, read) is None


def test_a_bad_model_is_rolled_back_once_with_its_reason(models, caplog):
    replica = Replica(models.folder, read={"version-two": Readings(500, 400, 1.0)})
    replica.watch.look()  # what was read before the promotion does not count
    models.promote("two", {"watch": WATCH})
    replica.read["version-two"] = Readings(520, 405, 1.1)
    replica.watch.look()
    assert (models.current, replica.reloads) == ("two", 0)
    replica.read["version-two"] = Readings(540, 411, 1.2)
    for _ in range(2):
        replica.watch.look()
    assert (models.current, replica.reloads) == ("one", 1)
    last = models.history()[-1]
    assert (last["action"], last["by"]) == ("rollback", "inkdigits serve")
    assert last["reason"] == "11 of its first 40 readings were rejected; 10 of 100 are allowed"
    assert "the promoted model was rolled back" in caplog.text


@pytest.mark.parametrize("record", [{}, {"watch": None}, {"watch": {"readings": 100}}])
def test_a_model_without_limits_stays(models, record):
    models.promote("two", record)
    replica = Replica(models.folder)
    replica.watch.look()
    replica.read["version-two"] = Readings(50, 50, 9.0)
    replica.watch.look()
    assert models.current == "two"


def test_what_is_read_after_the_first_readings_rolls_nothing_back(models):
    models.promote("two", {"watch": WATCH})
    replica = Replica(models.folder)
    replica.read["version-two"] = Readings(101, 10, 2.0)
    replica.watch.look()
    replica.read["version-two"] = Readings(102, 50, 9.0)
    replica.watch.look()
    assert models.current == "two"


def test_more_than_the_first_readings_between_two_looks_count_by_their_share(models):
    replica = Replica(models.folder)
    replica.watch.look()
    models.promote("two", {"watch": WATCH})
    replica.read["version-two"] = Readings(5000, 501, 2.0)
    replica.watch.look()
    assert models.current == "one"


def test_replicas_with_one_database_decide_once_and_follow_each_other(models, tmp_path):
    other = Registry(tmp_path / "other")
    variant(other.folder / "one" / ARTIFACT_NAME, "version-one")
    (other.folder / "two").symlink_to(models.folder / "two")
    other.promote("one", {})
    with opened(sqlite_url(tmp_path), tmp_path) as store:
        # Two replicas share a folder, the third has its own.
        replicas = [Replica(r.folder, store) for r in (models, models, other)]
        models.promote("two", {"watch": WATCH})
        change = models.history()[-1]
        with (other.folder / "promotions.jsonl").open("a") as file:
            file.write((models.folder / "promotions.jsonl").read_text().splitlines()[-1] + "\n")
        link = other.folder / "current"
        link.unlink()
        link.symlink_to("two")
        for replica in replicas:
            replica.watch.look()
        replicas[0].read["version-two"] = Readings(20, 20, 0.1)
        for replica in replicas:
            replica.watch.look()
        assert (models.current, other.current) == ("one", "one")
        assert [c["action"] for c in models.history()] == ["promote", "promote", "rollback"]
        name = f"version-two@{change['at']}"
        reason = store.ended_promotion(name)
        assert reason == other.history()[-1]["reason"]
        assert store.end_promotion(name, "another") == reason
        # The database is not needed.
        models.promote("two", {"watch": WATCH, "again": True})
        store._database.fail("unplugged")
        replicas[1].read["version-two"] = Readings(20, 20, 0.1)
        replicas[1].watch.look()
        assert models.current == "one"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_said_to_be(models):
    models.promote("two", {"watch": WATCH})
    replica = Replica(models.folder)
    replica.watch.look()
    models.folder.chmod(0o500)
    replica.read["version-two"] = Readings(20, 20, 0.1)
    with pytest.raises((RegistryError, OSError)):
        replica.watch.look()
    models.folder.chmod(0o700)
    assert models.current == "two"
