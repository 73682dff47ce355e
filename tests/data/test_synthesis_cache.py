from dataclasses import replace

import pytest
import torch

from inkdigits.data import synthesis_cache
from inkdigits.data.mnist import Digits
from inkdigits.data.synthesis import Material, SynthesisConfig
from inkdigits.data.synthesis_cache import read_or_write, read_synthetic
from inkdigits.errors import TrainingError
from inkdigits.types import NO_DIGIT

CONFIG = SynthesisConfig(digits=60, others=30)


@pytest.fixture
def asked(monkeypatch):
    """What was to be synthesised, instead of synthesising it."""
    configs = []

    def synthesise(material, config, *, kept, report):
        configs.append(config)
        return Digits(material.digits.inks[:2], torch.tensor([7, NO_DIGIT]))

    monkeypatch.setattr(synthesis_cache, "synthesise", synthesise)
    return configs


def some(shade, segmenter=b"one"):
    digits = Digits(torch.full((3, 28, 28), shade, dtype=torch.uint8), torch.arange(3))
    return Material(digits, segmenter=segmenter)


def test_a_runs_own_pictures_are_made_once_and_again_where_they_would_be_others(asked, tmp_path):
    path = tmp_path / "synthetic.npz"
    read_or_write(some(1), CONFIG, path)
    again, _ = read_or_write(some(1), CONFIG, path)
    assert torch.equal(again.inks, some(1).digits.inks[:2])
    assert asked == [CONFIG]
    other = replace(CONFIG, seed=1)
    read_or_write(some(1), other, path)
    # Of other digits, as of another configuration: what is there is of no use to this run.
    made, _ = read_or_write(some(2), other, path)
    assert asked == [CONFIG, other, other]
    assert torch.equal(read_synthetic(path, some(2))[0].inks, made.inks)
    with pytest.raises(TrainingError, match="of other digits"):
        read_synthetic(path, some(1))
    with pytest.raises(TrainingError, match="of other digits"):
        read_synthetic(path, some(2, b"other"))
