import json
import threading

import pytest
from support.artifacts import corrupt, variant

from inkdigits.errors import RegistryError
from inkdigits.model.artifact import ARTIFACT_NAME, read_artifact, read_metadata
from inkdigits.model.registry import PROMOTIONS, Registry
from inkdigits.reader import load

CHANGE = {"action": "promote", "at": "now", "from": None, "to": "two", "model_version": "v"}


@pytest.fixture
def models(tmp_path):
    """A folder of three models, of which none is served yet."""
    for name in ("one", "two"):
        variant(tmp_path / name / ARTIFACT_NAME, f"version-{name}")
    corrupt(tmp_path / "bad" / ARTIFACT_NAME)
    return Registry(tmp_path)


def test_versions_are_listed_with_what_is_wrong_with_them(models):
    bad, one, two = models.versions()
    assert (one.name, one.metadata.model_version, two.name) == ("one", "version-one", "two")
    assert "altered" in bad.problem
    assert bad.metadata is None
    for name in ("three", "../one", "current"):
        with pytest.raises(RegistryError, match="it has bad, one, two"):
            models.version(name)


def test_promote_and_rollback_change_what_current_means(models):
    for name in ("one", "two"):
        models.promote(name, {"figures": {"accuracy": 0.9}}, by="ann")
        assert load(models.folder / "current").model_version == f"version-{name}"
    assert [version.is_current for version in models.versions()] == [False, False, True]
    change = models.rollback({"reason": "rejections"})
    assert load(models.folder / "current").model_version == "version-one"
    assert (change["from"], change["to"], change["reason"]) == ("two", "one", "rejections")
    assert [(c["action"], c["to"]) for c in models.history()] == [
        *(("promote", "one"), ("promote", "two"), ("rollback", "one")),
    ]
    assert models.history()[0]["by"] == "ann"
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        models.rollback()
    models.promote("two", {})
    assert models.previous == "one"


def test_model_that_was_linked_by_hand_is_rolled_back_to(models):
    (models.folder / "current").symlink_to("one")
    models.promote("two", {})
    assert models.rollback()["to"] == "one"


def test_damaged_model_is_not_promoted(models):
    models.promote("one", {})
    with pytest.raises(RegistryError, match=r"bad cannot be served: .*altered"):
        models.promote("bad", {})
    assert (models.current, len(models.history())) == ("one", 1)


def test_folder_that_cannot_be_written_to_stays_as_it_is(models, monkeypatch):
    models.promote("one", {})

    def deny(*_args, **_kwargs):
        raise OSError(30, "Read-only file system")

    for step in ("pathlib.Path.symlink_to", "os.fsync", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(step, deny)
            with pytest.raises(RegistryError, match=r"Read-only.*current model is one"):
                models.promote("two", {})
        assert (models.current, len(models.history())) == ("one", 1)
        assert not list(models.folder.glob(".current*"))


@pytest.mark.parametrize(
    "line", ["{", "3", '{"action": "promote"}', json.dumps({**CHANGE, "watch": {"readings": "a"}})]
)
def test_damaged_record_is_an_error(models, line):
    (models.folder / PROMOTIONS).write_text(json.dumps(CHANGE) + "\n" + line)
    with pytest.raises(RegistryError, match="cannot be read"):
        models.history()


def test_change_that_fails_leaves_what_another_process_records_meanwhile(models, monkeypatch):
    waiting = threading.Thread(target=lambda: Registry(models.folder).promote("two", {}))

    def deny(*_args):
        monkeypatch.undo()
        waiting.start()
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("pathlib.Path.replace", deny)
    with pytest.raises(RegistryError):
        models.promote("one", {})
    waiting.join()
    assert [change["to"] for change in models.history()] == [models.current] == ["two"]


def test_folder_of_a_model_stands_for_its_artifact(models):
    assert read_metadata(read_artifact(models.folder / "one")).model_version == "version-one"
