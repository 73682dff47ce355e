from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset

from inkdigits.errors import TrainingError
from inkdigits.training.streams.loop import Stream, StreamConfig, train_on_stream, worker_rng

CONFIG = StreamConfig(steps=40, learning_rate=0.1, warm_up=4, reuse=4, kept=3, workers=0)


class Squares(IterableDataset):
    """Batches (8, 2, 2) of one shade each, and that shade."""

    def __init__(self, seed):
        self._rng = worker_rng(seed)

    def __iter__(self):
        while True:
            shades = torch.from_numpy(self._rng.integers(0, 255, 8))
            yield shades.view(8, 1, 1).expand(8, 2, 2).to(torch.uint8), shades.float() / 255


def prepared(pictures, shades):
    return pictures.float().flatten(1) / 255, shades


def squared(output, shades):
    loss = (output[:, 0] - shades).square().mean()
    return loss, {"loss": loss}


def trained(folder, config=CONFIG, losses=squared, **options):
    stream = Stream("shades", lambda: nn.Linear(4, 1), Squares, prepared, losses)
    return train_on_stream(stream, config, folder / "checkpoint.pt", **options)


@pytest.mark.trains
def test_a_network_learns_and_a_run_continues_with_more_steps(tmp_path):
    trained(tmp_path)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 40
    lines = []
    longer = replace(CONFIG, steps=1000)
    weights = trained(tmp_path, longer, resume=True, report=lines.append)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 1000
    assert ["step 500" in line for line in lines] == [True, False]
    assert "rate 0.00000" in lines[-1]
    found = float(weights["weight"].sum() + weights["bias"])  # of a white square
    assert abs(found - 1) < 0.05
    # What is finished stays as it is.
    again = trained(tmp_path, longer, resume=True)
    assert torch.equal(again["weight"], weights["weight"])


@pytest.mark.trains
def test_another_run_or_a_damaged_checkpoint_is_not_resumed(tmp_path):
    trained(tmp_path)
    for name, value in (("seed", 1), ("data", "other digits")):
        with pytest.raises(TrainingError, match=f"a run with another {name}"):
            trained(tmp_path, replace(CONFIG, **{name: value}), resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="cannot be resumed from"):
        trained(tmp_path, resume=True)


@pytest.mark.trains
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    def broken(output, shades):
        loss = squared(output, shades)[0] * float("nan")
        return loss, {"loss": loss}

    with pytest.raises(TrainingError, match="step 1 is not finite"):
        trained(tmp_path, losses=broken)
    assert not list(tmp_path.iterdir())


@pytest.mark.trains
def test_the_seed_decides_the_first_weights(tmp_path):
    barely = replace(CONFIG, steps=1, learning_rate=1e-9)
    first, again, other = (trained(tmp_path, replace(barely, seed=n))["weight"] for n in (1, 1, 2))
    assert torch.equal(first, again)
    assert float((first - other).abs().max()) > 0.01
