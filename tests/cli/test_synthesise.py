import pytest
from support.commands import run

from inkdigits.data.mnist import load_splits
from inkdigits.data.synthesis import Material
from inkdigits.data.synthesis_cache import read_synthetic
from inkdigits.types import NO_DIGIT

pytestmark = pytest.mark.trains


def test_synthesise_writes_the_pictures_and_how_they_were_made(small_mnist, tmp_path):
    file = tmp_path / "deeper" / "pictures.npz"
    made = ("synthesise", "--data", small_mnist, "--no-download", "--synthetic", 100, "--seed", 7)
    assert f"wrote {file}" in run(*made, "--out", file).stderr
    pictures, config = read_synthetic(file, Material(load_splits(small_mnist).train))
    assert (config["digits"], config["others"], config["seed"]) == (67, 33, 7)
    assert pictures.inks.shape[1:] == (28, 28)
    # Shares are rounded, and a picture in which there is no ink is left out.
    assert len(pictures) == pytest.approx(100, abs=20)
    assert int((pictures.labels == NO_DIGIT).sum()) == pytest.approx(33, abs=10)
