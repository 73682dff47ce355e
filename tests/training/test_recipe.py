import json

import pytest
from support.commands import run

import inkdigits


@pytest.fixture(scope="module")
def made(small_mnist, tmp_path_factory):
    """A folder in which every stage was run, and the arguments that did it."""
    folder = tmp_path_factory.mktemp("recipe")
    arguments = [
        *("train", "--data", small_mnist, "--no-download", "--quick", "--batch-size", 90),
        *("--epochs", 2, "--synthetic", 240, "--ema-decay", 0.9, "--risk", 0.4, "--device", "cpu"),
        *("--teachers", 1, "--teacher-epochs", 1, "--classic-epochs", 1),
        *("--out", folder, "--figures", folder / "figures", "--logs", folder / "logs", "--json"),
    ]
    run(*arguments)
    return folder, arguments


def test_one_command_trains_the_teachers_the_network_and_the_plain_one(made):
    folder, _ = made
    described = json.loads((folder / "run.json").read_text())
    teacher = json.loads((folder / "teacher1" / "run.json").read_text())
    assert teacher["config"]["network"] == "TeacherNet"
    assert [t["config"]["epochs"] for t in described["teachers"]] == [1]
    assert teacher["synthesis"] == described["synthesis"]
    assert described["synthesis"][0]["digits"] == 160
    assert described["preprocessing_version"] == described["synthesis"][0]["preprocessing_version"]
    assert (described["config"]["dropout"], described["config"]["distillation"]) == (0.1, 0.8)
    versions = [
        inkdigits.load(folder / name).metadata.architecture
        for name in ("mnist_classifier.onnx", "MNISTClassifier.onnx")
    ]
    assert versions == ["DigitNet", "MNISTClassifier"]


def test_resumed_it_keeps_what_is_done(made):
    folder, arguments = made
    files = ["run.json", "teacher1/mnist_classifier.pt", "MNISTClassifier/run.json"]
    before = [(folder / name).read_bytes() for name in files]
    told = run(*arguments, "--resume").stderr
    assert [(folder / name).read_bytes() for name in files] == before
    for stage in ("teacher 1 is there", "DigitNet is there", "MNISTClassifier is there"):
        assert stage in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--add", "nowhere"), "there is no nowhere"),
        (("--init", "none.pt"), "there are no weights at none.pt"),
    ],
)
def test_what_is_missing_is_told_before_pictures_are_made(options, message, small_mnist, tmp_path):
    arguments = ("train", "--data", small_mnist, "--no-download", "--out", tmp_path, "--json")
    assert message in run(*arguments, *options, exit_code=1).stderr
    assert not list(tmp_path.iterdir())


def test_weights_of_another_preprocessing_are_not_exported(made, tmp_path):
    folder, _ = made
    for name in ("mnist_classifier.pt", "optimal_temperature.json", "novelty.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    described = json.loads((folder / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**described, "preprocessing_version": 0}))
    told = run("export", "--run", tmp_path, exit_code=1).stderr
    assert "preprocessing version 0" in told
