import pytest
import torch
from support.commands import run

from inkdigits.data.mnist import load_splits
from inkdigits.data.synthesis_cache import read_synthetic
from inkdigits.types import NO_DIGIT


def train(data, folder):
    return [
        *("train", "--data", data, "--no-download", "--epochs", 1, "--synthetic", 0),
        *("--out", folder, "--figures", folder, "--logs", folder),
    ]


def test_pictures_contradict_training_on_clean_digits_only(small_mnist, tmp_path):
    result = run(*train(small_mnist, tmp_path), "--pictures", tmp_path / "a.npz", exit_code=2)
    assert "--pictures and --synthetic 0 contradict each other" in result.stderr


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


def test_resume_without_a_run_is_an_error(small_mnist, tmp_path):
    result = run(*train(small_mnist, tmp_path), "--resume", exit_code=1)
    assert "nothing to resume" in result.stderr


def test_teacher_that_is_no_network_is_an_error(small_mnist, tmp_path):
    wrong = tmp_path / "wrong.pt"
    torch.save({"weight": torch.zeros(3)}, wrong)
    result = run(*train(small_mnist, tmp_path), "--teacher", wrong, exit_code=1)
    assert "wrong.pt cannot be used" in result.stderr
