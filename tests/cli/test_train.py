import pytest
import torch
from support.commands import run

from inkdigits.data.mnist import load_splits
from inkdigits.data.synthesis_cache import read_synthetic
from inkdigits.types import NO_DIGIT

pytestmark = pytest.mark.trains


def train(data, folder):
    return [
        *("train", "--data", data, "--no-download", "--epochs", 1, "--synthetic", 0),
        *("--out", folder, "--figures", folder, "--logs", folder),
    ]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--pictures", "a.npz"], 2, "--pictures and --synthetic 0 contradict each other"),
        (["--weight", 2], 2, "need --add"),
        (["--resume"], 1, "nothing to resume"),
        (["--teacher", "wrong.pt"], 1, "wrong.pt cannot be used"),
    ],
)
def test_options_that_cannot_be_trained_with_are_errors(
    options, code, message, small_mnist, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(3)}, "wrong.pt")
    assert message in run(*train(small_mnist, tmp_path), *options, exit_code=code).stderr


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
