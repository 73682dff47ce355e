import json

import pytest
from support.artifacts import corrupt, variant, worse
from support.commands import run

from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import ARTIFACT_NAME
from inkdigits.model.registry import Registry
from inkdigits.reader import load

GATE = '[[on]]\nname = "mine"\ndata = "own"\nmax_accuracy_drop = 0.05\n[watch]\nreadings = 9\n'


@pytest.fixture
def models(digits, tmp_path):
    """A folder of a good, a worse and a damaged model, with a gate and its pictures."""
    inks, labels = digits
    for number in range(40):
        path = tmp_path / "own" / str(labels[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(255 - inks[number]))
    variant(tmp_path / "good" / ARTIFACT_NAME, "version-good")
    worse(tmp_path / "worse" / ARTIFACT_NAME, by=15.0)
    corrupt(tmp_path / "damaged" / ARTIFACT_NAME)
    (tmp_path / "gate.toml").write_text(GATE)
    return tmp_path


def test_only_what_passes_the_gate_is_promoted(models):
    def promote(name, *options, exit_code=0):
        return run("models", "promote", name, "--models", models, *options, exit_code=exit_code)

    assert "version-good) is the current model" in promote("good", "--by", "ann").stdout
    assert "does not pass" in promote("worse", exit_code=1).stderr
    assert "altered" in promote("damaged", exit_code=1).stderr
    assert "is already the current model" in promote("good", exit_code=1).stderr
    assert load(models / "current").model_version == "version-good"
    (change,) = Registry(models).history()
    assert (change["by"], change["without_gate"], change["watch"]["readings"]) == ("ann", False, 9)
    assert change["gate"]["on"]["mine"]["n"] == 40
    (models / "gate.toml").unlink()
    assert "use --without-gate" in promote("worse", exit_code=1).stderr
    both = promote("worse", "--without-gate", "--gate", "gate.toml", exit_code=2)
    assert "use either --gate or --without-gate" in both.stderr
    promote("worse", "--without-gate")
    assert Registry(models).history()[-1]["without_gate"]
    done = run("models", "rollback", "--models", models, "--reason", "worse")
    assert "good (version-good) is the current model" in done.stdout
    assert Registry(models).history()[-1]["reason"] == "worse"


def test_models_are_listed_and_shown(models):
    folder = ("--models", models)
    run("models", "promote", "good", "--without-gate", *folder)
    lines = run("models", "list", *folder).stdout.splitlines()
    assert [line[:2] for line in lines] == ["  ", "* ", "  "]
    listed = json.loads(run("models", "list", "--json", *folder).stdout)
    assert [one["current"] for one in listed["models"]] == [False, True, False]
    assert json.loads(run("models", "show", "current", *folder).stdout)["name"] == "good"
    assert "altered" in run("models", "show", "damaged", *folder, exit_code=1).stderr
    (models / "none").mkdir()
    assert "contains no model" in run("models", "list", "--models", models / "none").stderr
    assert "does not exist" in run("models", "list", "--models", models / "x", exit_code=1).stderr


def test_models_are_compared_on_pictures_or_by_a_gate(models):
    own = ("--data", models / "own", "--models", models)
    (models / "own" / "0" / "bad.png").write_bytes(b"no picture")
    done = run("models", "compare", "shipped", "worse", *own)
    assert "A is mnist-classifier-" in done.stdout
    assert "McNemar p" in done.stdout
    assert "bad.png: These 10 bytes are not a picture" in done.stderr
    found = json.loads(run("models", "compare", "good", models / "worse", *own, "--json").stdout)
    assert found["versions"][0] == "version-good"
    gate = ("--gate", models / "gate.toml", "--models", models)
    passed = run("models", "compare", "shipped", "good", *gate)
    assert "McNemar p" in passed.stdout
    assert "version-good passes" in passed.stdout
    failed = run("models", "compare", "good", "worse", *gate, "--json", exit_code=1)
    assert "loss of accuracy" in failed.stderr
    assert "loss of accuracy" in json.loads(failed.stdout)["failures"][0]
    for wrong in ((), (*gate, "--pattern", "x")):
        assert "--data" in run("models", "compare", "good", "worse", *wrong, exit_code=2).stderr
