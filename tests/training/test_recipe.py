import hashlib
import json
import pkgutil
import sys
from contextlib import contextmanager

import pytest
from support.commands import run

import inkdigits
from inkdigits.model.artifact import LINE_READER, SEGMENTER, read_network
from inkdigits.training.run_folder import networks_of

STAGES = ("segmenter", "lines", "pictures", "network", "calibration", "int8", "classic")


@pytest.fixture(scope="module")
def arguments(small_mnist):
    return [
        *("train", "--data", small_mnist, "--no-download", "--quick", "--batch-size", 90),
        *("--epochs", 2, "--synthetic", 240, "--ema-decay", 0.9, "--risk", 0.4, "--device", "cpu"),
        *("--classic-epochs", 2, "--segmenter-steps", 2, "--line-steps", 2),
        "--json",
    ]


def folders(folder):
    return "--out", folder, "--figures", folder / "figures", "--logs", folder / "logs"


@pytest.fixture(scope="module")
def made(arguments, tmp_path_factory):
    """A folder in which every stage was run, each interrupted once and then continued.

    Also the lines that the starts said.
    """
    folder, told = tmp_path_factory.mktemp("recipe"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inkdigits.data.synthesis._TASK_SIZE", 20)
        patch.setattr("inkdigits.data.pictures.lines._POOL", 80)
        for number, stage in enumerate(STAGES):
            with interrupted(stage):
                resume = ["--resume"] if number else []
                told.append(run(*arguments, *folders(folder), *resume, exit_code=130).stderr)
        told.append(run(*arguments, *folders(folder), "--resume").stderr)
    return folder, told


@contextmanager
def interrupted(stage):
    """Have a stage interrupted while it runs, as Ctrl-C does."""
    places = {
        "segmenter": "inkdigits.training.recipe.write_json",
        "lines": "inkdigits.training.recipe.write_json",
        "pictures": "inkdigits.data.synthesis._read_or_make",
        "network": "inkdigits.training.fit._Trainer.run_epoch",
        "calibration": "inkdigits.training.pipeline.find_operating_point",
        "int8": "inkdigits.training.quantise.int8_changes",
        "classic": "inkdigits.training.fit._Trainer.run_epoch",
    }
    module, _, name = places[stage].rpartition(".")
    owner = pkgutil.resolve_name(module)
    original, calls = getattr(owner, name), []

    def stopped(*args, **kwargs):
        calls.append(1)
        # A network's second epoch and the third part of the pictures; others as soon as they begin.
        if len(calls) >= {"lines": 2, "pictures": 3, "network": 2, "classic": 2}.get(stage, 1):
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, stopped)
        yield


def test_one_command_trains_all_networks_and_seals_them_together(made):
    folder, _ = made
    described = json.loads((folder / "run.json").read_text())
    assert described["synthesis"][0]["digits"] == 160
    assert described["preprocessing_version"] == described["synthesis"][0]["preprocessing_version"]
    names = ("mnist_classifier.onnx", "MNISTClassifier.onnx")
    found = [inkdigits.load(folder / name).metadata.architecture for name in names]
    assert found == ["DigitNet", "MNISTClassifier"]
    digests = {}
    for part, file in ((SEGMENTER, "ink_segmenter.onnx"), (LINE_READER, "line_reader.onnx")):
        network = (folder / file).read_bytes()
        assert all(read_network(part, folder / name) == network for name in names)
        digests[part] = hashlib.sha256(network).hexdigest()
        assert described[f"{part}_sha256"] == digests[part]
    assert described["synthesis"][0]["segmenter_sha256"] == digests[SEGMENTER]


def test_every_stage_that_is_interrupted_is_continued_and_none_is_run_twice(made):
    folder, told = made
    for name in (".", "MNISTClassifier"):
        described = json.loads((folder / name / "run.json").read_text())
        assert len(described["history"]) == 2
    done = {
        "the network that finds ink is there": 2,
        "the network that reads lines is there": 3,
        "DigitNet is there": 6,
    }
    for line, first in done.items():
        assert [line in said for said in told] == [at >= first for at in range(len(told))], line
    assert sum("pictures without one" in said for said in told) == 1
    assert not (folder / "synthetic.parts").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--add", "nowhere"), "nowhere does not exist"),
        (("--init", "none.pt"), "there are no weights at none.pt"),
        (("--limit", "100"), "100 training pictures do not fill one batch of 287"),
        (("--track", "mlflow"), "--track mlflow needs mlflow"),
    ],
)
def test_what_is_missing_is_told_before_pictures_are_made(
    options, message, small_mnist, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    arguments = ("train", "--data", small_mnist, "--no-download", "--out", tmp_path, "--json")
    assert message in run(*arguments, *options, exit_code=1).stderr
    assert not list(tmp_path.iterdir())


def test_another_network_that_finds_ink_in_the_folder_is_not_exported(made, tmp_path):
    folder, _ = made
    for name in ("mnist_classifier.pt", "optimal_temperature.json", "novelty.json", "run.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "ink_segmenter.onnx").write_bytes(read_network(SEGMENTER))
    assert "name it with --segmenter" in run("export", "--run", tmp_path, exit_code=1).stderr
    run("export", "--run", tmp_path, "--segmenter", folder / "mnist_classifier.onnx")
    own = read_network(SEGMENTER, folder / "mnist_classifier.onnx")
    assert read_network(SEGMENTER, tmp_path / "mnist_classifier.onnx") == own


def test_a_network_of_an_earlier_run_in_the_folder_is_not_exported(tmp_path):
    shipped = read_network(LINE_READER)
    (tmp_path / "line_reader.onnx").write_bytes(read_network(SEGMENTER))
    known = {"line_reader_sha256": hashlib.sha256(shipped).hexdigest()}
    assert networks_of(tmp_path, known)[LINE_READER] == shipped


def test_a_run_that_starts_from_another_keeps_its_networks_and_shares_its_pictures(
    made, small_mnist, tmp_path
):
    folder, _ = made
    run(
        *("train", "--data", small_mnist, "--no-download", "--device", "cpu", "--epochs", 1),
        *("--init", folder / "mnist_classifier.pt", "--pictures", folder / "synthetic.npz"),
        *("--limit", 300, "--batch-size", 60, "--risk", 0.4, *folders(tmp_path)),
    )
    for part in (SEGMENTER, LINE_READER):
        found = [read_network(part, at / "mnist_classifier.onnx") for at in (tmp_path, folder)]
        assert found[0] == found[1]


def test_weights_of_another_preprocessing_are_not_exported(made, tmp_path):
    folder, _ = made
    for name in ("mnist_classifier.pt", "optimal_temperature.json", "novelty.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    described = json.loads((folder / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**described, "preprocessing_version": 0}))
    told = run("export", "--run", tmp_path, exit_code=1).stderr
    assert "preprocessing version 0" in told
