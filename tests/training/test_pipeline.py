import json

import numpy as np
import pytest
from PIL import Image
from support.commands import run
from support.pictures import encoded, seven

import inkdigits


@pytest.fixture(scope="module")
def trained(small_mnist, tmp_path_factory):
    """A run of two epochs, made by the command line."""
    folder = tmp_path_factory.mktemp("run")
    run(*train_arguments(small_mnist, folder))
    return folder


def train_arguments(data, folder):
    return [
        *("train", "--data", data, "--no-download", "--epochs", 2, "--batch-size", 90),
        *("--synthetic", 240, "--ema-decay", 0.9, "--risk", 0.4, "--device", "cpu"),
        *("--learning-rate", 0.002, "--augmentation", 1, "--keep", "best"),
        *("--classic-epochs", 0, "--segmenter-steps", 0),
        *("--out", folder / "models"),
        *("--figures", folder / "figures", "--logs", folder / "logs", "--json"),
    ]


def test_training_writes_every_file_that_it_promises(trained):
    assert {path.name for path in (trained / "models").iterdir()} == {
        *("checkpoint.pt", "mnist_classifier.onnx", "mnist_classifier.pt", "novelty.json"),
        *("optimal_temperature.json", "run.json", "synthetic.npz"),
    }
    assert {path.stem for path in (trained / "figures").iterdir()} == {
        *("augmentation_preview", "confusion_matrix", "misread", "model_architecture"),
        *("reliability", "synthetic_preview", "training_history"),
    }
    for path in (trained / "figures").iterdir():
        with Image.open(path) as figure:
            assert min(figure.size) > 100
    assert list((trained / "logs").glob("events.out.tfevents.*"))


def test_run_json_says_how_the_model_was_made_and_what_it_scores(trained):
    saved = json.loads((trained / "models" / "run.json").read_text())
    assert saved["data"]["train"]["n"] == 1100
    assert saved["data"]["test"]["n"] == saved["test"]["n"] == 297
    assert saved["config"]["epochs"] == len(saved["history"]) == 2
    assert saved["config"]["augmentation"]["rotation"] > 0
    assert all((saved["versions"]["torch"], saved["hardware"]["cpu"]))
    assert saved["calibrated_on"]["hardware"] == saved["hardware"]
    assert saved["trained_before_on"] == []
    accuracy = saved["test"]["accuracy"]
    assert 0.5 < accuracy["low"] < accuracy["value"] < accuracy["high"] < 1
    corrupted, policy = saved["accepted_by_group"]["mildly corrupted"], saved["policy"]
    assert 190 < corrupted["n"] <= 200
    assert policy["accept_threshold"] is not None
    assert 0 < corrupted["n_accepted"] < corrupted["n"]
    assert corrupted["n_wrong"] <= policy["risk"] * corrupted["n_accepted"]


def test_train_learns_from_the_pictures_of_another_run(trained, small_mnist, tmp_path):
    models = trained / "models"
    pictures = ("--pictures", models / "synthetic.npz") * 2
    plain = ("--network", "MNISTClassifier")
    run(*train_arguments(small_mnist, tmp_path), *plain, *pictures)
    saved = json.loads((tmp_path / "models" / "run.json").read_text())
    assert saved["config"]["network"] == "MNISTClassifier"
    made = json.loads((models / "run.json").read_text())["synthesis"]
    assert saved["synthesis"] == made * 2
    assert saved["run_seconds"] > saved["training_seconds"] > 0
    assert not (tmp_path / "models" / "synthetic.npz").exists()


def test_pictures_that_cannot_be_learned_from_are_an_error(trained, small_mnist, tmp_path):
    arguments = train_arguments(small_mnist, tmp_path)
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    with np.load(trained / "models" / "synthetic.npz") as saved:
        key = json.dumps([*json.loads(str(saved["key"]))[:2], {"digits_sha256": "another"}])
        made = {"key": np.array(key), "inks": saved["inks"], "labels": saved["labels"]}
        np.savez(tmp_path / "of_others.npz", **made)
    for name, message in (
        ("none", "no synthesised pictures at"),
        ("damaged", "damaged.npz cannot be read"),
        ("of_others", "of other digits or by another preprocessing"),
    ):
        result = run(*arguments, "--pictures", tmp_path / f"{name}.npz", exit_code=1)
        assert message in result.stderr


def test_export_gives_the_artifact_again_with_its_figures(trained, tmp_path):
    models = trained / "models"
    saved = json.loads((models / "run.json").read_text())
    target = tmp_path / "copy.onnx"
    assert str(target) in run("export", "--run", models, "--to", target).output
    metadata = inkdigits.load(target).metadata
    assert metadata.policy.risk == metadata.provenance["config"]["risk"] == 0.4
    assert metadata.policy.choice(0.4).threshold == metadata.policy.accept_threshold
    assert metadata.novelty_method == "energy"
    assert metadata.provenance["test"]["n_correct"] == saved["test"]["n_correct"]
    assert metadata.provenance["config"]["epochs"] == 2


def test_trained_artifact_is_read_by_predict_and_by_evaluate(trained, small_mnist, tmp_path):
    model = trained / "models" / "mnist_classifier.onnx"
    (tmp_path / "seven.png").write_bytes(encoded(seven()))
    out = json.loads(run("predict", "--json", "--model", model, tmp_path / "seven.png").stdout)
    assert out["model_version"] == inkdigits.load(model).model_version
    data = ("--data", small_mnist, "--no-download")
    arguments = ["evaluate", *data, "--model", model, "--figures", tmp_path]
    text = run(*arguments).stdout
    assert "of 297; 95 % interval" in text
    assert (tmp_path / "misread.png").is_file()
    scores = json.loads(run(*arguments, "--json").stdout)
    saved = json.loads((trained / "models" / "run.json").read_text())
    assert scores["digits"]["n_correct"] == saved["test"]["n_correct"]
