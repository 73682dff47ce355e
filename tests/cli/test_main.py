import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from support.pictures import encoded, seven

import inkdigits
from inkdigits.cli.main import main
from inkdigits.data.mnist import load_splits
from inkdigits.data.synthesis_cache import read_synthetic
from inkdigits.training import pipeline as recipe
from inkdigits.training import run_folder as run_files
from inkdigits.types import NO_DIGIT

COMMANDS = {
    "serve",
    "predict",
    "synthesise",
    "train",
    "evaluate",
    "calibrate",
    "export",
    "benchmark",
}


def run(*arguments, exit_code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == exit_code, result.output
    return result


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    (folder / "seven.png").write_bytes(encoded(seven()))
    (folder / "deeper" / "blank.jpg").write_bytes(encoded(Image.new("L", (50, 50), 255), "JPEG"))
    (folder / "notes.txt").write_text("not a picture, and not asked for")
    return folder


@pytest.fixture(scope="module")
def trained(small_mnist, tmp_path_factory) -> Path:
    """A run of two epochs, made by the command line."""
    folder = tmp_path_factory.mktemp("run")
    run(*train_arguments(small_mnist, folder))
    return folder


def train_arguments(data, folder, synthetic=240):
    return [
        *("train", "--data", data, "--no-download", "--epochs", 2, "--batch-size", 90),
        *("--synthetic", synthetic),
        *("--ema-decay", 0.9, "--risk", 0.2, "--device", "cpu", "--out", folder / "models"),
        *("--figures", folder / "figures", "--logs", folder / "logs", "--json"),
    ]


def test_every_command_is_there_and_explains_itself_and_its_options():
    assert set(main.commands) >= COMMANDS
    for name, command in main.commands.items():
        text = run(name, "--help").output
        assert command.help, name
        assert len(text.splitlines()) > 4, name


def test_version():
    assert inkdigits.__version__ in run("--version").output


def test_predict_prints_a_table_of_files_and_folders(pictures):
    lines = run("predict", pictures, pictures / "seven.png").stdout.splitlines()
    assert lines[0].split() == ["file", "digit", "confidence", "decision"]
    assert len(lines) == 4
    assert lines[1].split()[1:2] == ["-"]
    assert lines[1].endswith("reject (blank)")
    assert lines[2].split()[1] == "7"
    assert lines[2] == lines[3]


def test_predict_json_is_for_programs(pictures):
    answer = json.loads(run("predict", "--json", pictures / "seven.png").stdout)
    (prediction,) = answer["predictions"]
    assert prediction["prediction"] == 7
    assert len(prediction["probabilities"]) == 10
    assert answer["model_version"] == inkdigits.load().model_version


def test_predict_at_a_stated_risk_says_what_it_costs(pictures):
    seven_png = pictures / "seven.png"
    loose = run("predict", "--risk", 0.01, seven_png)
    assert "calibration digits" in loose.stderr
    assert loose.stdout.splitlines()[1].endswith("accept")
    impossible = run("predict", "--risk", 1e-9, seven_png)
    assert "cannot keep it, so nothing is accepted" in impossible.stderr
    assert impossible.stdout.splitlines()[1].endswith("review")
    row = json.loads(run("predict", "--json", "--risk", 0.01, seven_png).stdout)["predictions"][0]
    assert row["risk"] == 0.01
    assert row["coverage"] == inkdigits.load().metadata.policy.choice(0.01).coverage
    run("predict", "--risk", 1, seven_png, exit_code=2)


def test_predict_explains_by_a_runner_up_and_two_pictures(pictures, tmp_path):
    folder = tmp_path / "why" / "deeper"
    more = pictures / "deeper" / "seven.png"
    more.write_bytes((pictures / "seven.png").read_bytes())
    result = run("predict", "--explain", "--explain-to", folder, pictures)
    blank, first, second = result.stdout.splitlines()[1:]
    assert "runner-up" not in blank
    assert "; runner-up " in first
    assert "; runner-up " in second
    assert {path.name for path in folder.iterdir()} == {
        *("blank.ink.png", "blank.saliency.png", "seven.ink.png", "seven.saliency.png"),
        *("seven-2.ink.png", "seven-2.saliency.png"),
    }
    with Image.open(folder / "seven.ink.png") as ink:
        assert (ink.size, ink.mode) == ((28, 28), "L")
    row = json.loads(run("predict", "--json", "--explain", "--explain-to", folder, more).stdout)[
        "predictions"
    ][0]
    explanation = inkdigits.load().explain(more)
    assert row["runner_up"] == explanation.runner_up
    assert Path(row["saliency_png"]).read_bytes() == explanation.overlay


def test_predict_that_cannot_write_its_explanation_says_where(pictures, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "deeper"
    result = run("predict", "--explain", "--explain-to", folder, pictures, exit_code=1)
    assert f"cannot write into {folder}" in result.stderr


def test_file_that_cannot_be_read_is_reported_and_the_others_are_read(pictures):
    result = run(
        "predict", pictures / "notes.txt", pictures / "nowhere.png", pictures / "seven.png",
        exit_code=1,
    )  # fmt: skip
    assert "notes.txt  " in result.stdout
    assert "2 of 3 files cannot be read" in result.stderr
    assert " 7 " in result.stdout


def test_folder_without_pictures_is_an_error(tmp_path):
    assert "holds no pictures" in run("predict", tmp_path, exit_code=1).stderr


def test_missing_model_is_one_line_and_exit_code_1(pictures, tmp_path):
    result = run("predict", "--model", tmp_path / "x.onnx", pictures, exit_code=1)
    assert result.stderr.strip() == f"Error: there is no artifact at {tmp_path / 'x.onnx'}"


def test_wrong_call_is_exit_code_2():
    run("predict", exit_code=2)
    run("predict", "--device", "tpu", "x.png", exit_code=2)
    run("nonsense", exit_code=2)


def test_training_writes_every_file_that_it_promises(trained):
    models = {path.name for path in (trained / "models").iterdir()}
    assert models == {
        "checkpoint.pt",
        "mnist_classifier.onnx",
        "mnist_classifier.pt",
        "novelty.json",
        "optimal_temperature.json",
        "run.json",
        "synthetic.npz",
    }
    figures = {path.name for path in (trained / "figures").iterdir()}
    assert figures == {
        "augmentation_preview.png",
        "confusion_matrix.png",
        "misread.png",
        "model_architecture.png",
        "reliability.png",
        "synthetic_preview.png",
        "training_history.png",
    }
    for path in (trained / "figures").iterdir():
        with Image.open(path) as figure:
            assert min(figure.size) > 200
    assert list((trained / "logs").glob("events.out.tfevents.*"))


def test_run_json_says_how_the_model_was_made_and_what_it_scores(trained):
    saved = json.loads((trained / "models" / "run.json").read_text())
    assert saved["data"]["train"]["n"] == 1100
    assert saved["data"]["test"]["n"] == saved["test"]["n"] == 297
    assert saved["config"]["epochs"] == 2
    assert saved["config"]["augmentation"]["rotation"] > 0
    assert saved["versions"]["torch"]
    assert saved["hardware"]["cpu"]
    assert saved["calibrated_on"]["hardware"] == saved["hardware"]
    assert saved["trained_before_on"] == []
    assert len(saved["history"]) == 2
    accuracy = saved["test"]["accuracy"]
    assert 0.5 < accuracy["low"] < accuracy["value"] < accuracy["high"] < 1
    corrupted, policy = saved["accepted_of_corrupted"], saved["policy"]
    assert corrupted["n"] == saved["data"]["calibration"]["n"]
    assert policy["accept_threshold"] is not None
    assert 0 < corrupted["n_accepted"] < corrupted["n"]
    assert corrupted["n_wrong"] <= policy["risk"] * corrupted["n_accepted"]


def test_trained_artifact_is_read_by_predict(trained, pictures):
    model = trained / "models" / "mnist_classifier.onnx"
    out = json.loads(run("predict", "--json", "--model", model, pictures / "seven.png").stdout)
    assert out["model_version"] == inkdigits.load(model).model_version


def test_train_learns_from_the_weights_and_the_pictures_of_another_run(
    trained, small_mnist, tmp_path
):
    models = trained / "models"
    pictures = ("--pictures", models / "synthetic.npz") * 2
    run(
        *train_arguments(small_mnist, tmp_path),
        *("--network", "MNISTClassifier", "--teacher", models / "mnist_classifier.pt", *pictures),
    )
    saved = json.loads((tmp_path / "models" / "run.json").read_text())
    assert saved["config"]["distillation"] == 0.9
    assert saved["config"]["network"] == "MNISTClassifier"
    told = json.loads((models / "run.json").read_text())
    assert [t["history"] for t in saved["teachers"]] == [told["history"]]
    assert saved["synthesis"] == told["synthesis"] * 2
    assert saved["run_seconds"] > saved["training_seconds"] > 0
    assert not (tmp_path / "models" / "synthetic.npz").exists()


def test_teacher_that_is_no_network_is_an_error(small_mnist, tmp_path):
    wrong = tmp_path / "wrong.pt"
    torch.save({"weight": torch.zeros(3)}, wrong)
    result = run(*train_arguments(small_mnist, tmp_path, 0), "--teacher", wrong, exit_code=1)
    assert "wrong.pt cannot be used" in result.stderr


def test_resume_of_a_finished_run_changes_nothing(trained, small_mnist):
    before = (trained / "models" / "mnist_classifier.pt").read_bytes()
    version = inkdigits.load(trained / "models" / "mnist_classifier.onnx").model_version
    run(*train_arguments(small_mnist, trained), "--resume")
    assert (trained / "models" / "mnist_classifier.pt").read_bytes() == before
    assert inkdigits.load(trained / "models" / "mnist_classifier.onnx").model_version == version


def test_synthesise_writes_the_pictures_and_how_they_were_made(small_mnist, tmp_path):
    file = tmp_path / "deeper" / "pictures.npz"
    made = ("synthesise", "--data", small_mnist, "--no-download", "--synthetic", 100, "--seed", 7)
    assert f"wrote {file}" in run(*made, "--out", file).stderr
    train = load_splits(small_mnist).train
    pictures, config = read_synthetic(file, train)
    assert (config["digits"], config["others"], config["seed"]) == (67, 33, 7)
    assert pictures.inks.shape[1:] == (28, 28)
    # Shares are rounded, and a picture in which there is no ink is left out.
    assert len(pictures) == pytest.approx(100, abs=20)
    assert int((pictures.labels == NO_DIGIT).sum()) == pytest.approx(33, abs=10)


def test_pictures_that_cannot_be_learned_from_are_an_error(trained, small_mnist, tmp_path):
    arguments = train_arguments(small_mnist, tmp_path)
    missing = run(*arguments, "--pictures", tmp_path / "none.npz", exit_code=1)
    assert "no synthesised pictures at" in missing.stderr
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    damaged = run(*arguments, "--pictures", tmp_path / "damaged.npz", exit_code=1)
    assert "damaged.npz cannot be read" in damaged.stderr
    made = tmp_path / "of_others.npz"
    with np.load(trained / "models" / "synthetic.npz") as saved:
        key = json.dumps([json.loads(str(saved["key"]))[0], "another digest", 2])
        np.savez(made, key=np.array(key), inks=saved["inks"], labels=saved["labels"])
    others = run(*arguments, "--pictures", made, exit_code=1)
    assert "of other digits or by another preprocessing" in others.stderr
    neither = train_arguments(small_mnist, tmp_path, synthetic=0)
    run(*neither, "--pictures", trained / "models" / "synthetic.npz", exit_code=2)


def test_resume_without_a_run_is_an_error(small_mnist, tmp_path):
    result = run(*train_arguments(small_mnist, tmp_path, 0), "--resume", exit_code=1)
    assert "nothing to resume" in result.stderr


def test_calibrate_and_export_renew_the_artifact(trained, small_mnist, tmp_path):
    models = trained / "models"
    run(
        *("calibrate", "--data", small_mnist, "--no-download", "--run", models),
        *("--figures", tmp_path, "--risk", 0.3, "--synthetic", 60),
    )
    saved = json.loads((models / "optimal_temperature.json").read_text())
    assert saved["policy"]["risk"] == 0.3
    target = tmp_path / "copy.onnx"
    assert str(target) in run("export", "--run", models, "--to", target).output
    metadata = inkdigits.load(target).metadata
    assert metadata.temperature == saved["temperature"]
    assert metadata.policy.risk == 0.3
    assert metadata.policy.choice(0.3).threshold == metadata.policy.accept_threshold
    assert metadata.novelty_method == "energy"
    # The strangest of 370 calibration digits: 0.3 % of them are rejected.
    assert metadata.policy.novelty_threshold == saved["policy"]["novelty_threshold"] > -100
    assert metadata.provenance["config"]["epochs"] == 2


def test_risk_that_no_threshold_keeps_accepts_nothing_and_says_so(trained, small_mnist, tmp_path):
    weights = run_files.read_weights(trained / "models" / "mnist_classifier.pt")
    said = []
    from inkdigits.data.mnist import load_splits

    folders = run_files.Folders(tmp_path, tmp_path, tmp_path)
    policy = recipe.calibrate_weights(
        weights,
        load_splits(small_mnist),
        folders,
        synthetic=None,
        risk=1e-6,
        report=said.append,
    ).policy
    assert policy.accept_threshold is None
    assert (policy.choices[0].risk, policy.choices[0].threshold) == (1e-6, None)
    assert "nothing will be accepted" in said[0]


def test_evaluate_prints_what_a_newcomer_can_read(trained, small_mnist, tmp_path):
    model = trained / "models" / "mnist_classifier.onnx"
    arguments = [
        *("evaluate", "--data", small_mnist, "--no-download", "--model", model),
        *("--figures", tmp_path),
    ]
    text = run(*arguments).stdout
    assert "of 297; 95 % interval" in text
    assert (tmp_path / "confusion_matrix.png").is_file()
    scores = json.loads(run(*arguments, "--json").stdout)
    saved = json.loads((trained / "models" / "run.json").read_text())
    assert scores["n_correct"] == saved["test"]["n_correct"]


def test_evaluate_reports_robustness_as_a_table_json_and_a_figure(small_mnist, tmp_path):
    arguments = [
        *("evaluate", "--data", small_mnist, "--no-download", "--robustness"),
        *("--per-family", 3, "--figures", tmp_path),
    ]
    text = run(*arguments).stdout
    assert "mean of the corruptions" in text
    assert (tmp_path / "robustness.png").is_file()
    scores = json.loads(run(*arguments, "--severity", 1, "--json").stdout)
    assert {tuple(s["severities"]) for s in scores["digits"]} == {(), (1,)}
    assert {s["n"] for s in scores["non_digits"]} == {3}


def test_options_of_robustness_are_refused_without_it(tmp_path):
    result = run("evaluate", "--data", tmp_path, "--per-family", 3, exit_code=2)
    assert "--robustness" in result.stderr


@pytest.mark.parametrize("command", ["calibrate", "export"])
def test_command_that_needs_a_run_names_what_is_missing(command, tmp_path):
    result = run(command, "--run", tmp_path, exit_code=1)
    assert "mnist_classifier.pt" in result.stderr


def test_evaluate_without_data_says_how_to_get_it(tmp_path):
    result = run("evaluate", "--data", tmp_path, "--no-download", exit_code=1)
    assert "--download" in result.stderr


def test_without_the_training_side_the_extra_is_named():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from inkdigits.cli.main import main\n"
        "main(['evaluate', '--no-download'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "pip install 'inkdigits[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_benchmark_compares_and_draws(tmp_path):
    chart = tmp_path / "speedups.png"
    out = json.loads(run("benchmark", "--quick", "--json", "--chart", chart).stdout)
    assert chart.is_file()
    assert {"rows", "hardware", "versions", "accelerator"} <= out.keys()
