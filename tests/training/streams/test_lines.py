import numpy as np
import onnxruntime
import pytest
import torch

from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.numbers import WrittenDigits
from inkdigits.decision.ctc import NOTHING
from inkdigits.model.artifact import SEGMENTER, read_network
from inkdigits.model.networks import LineNet
from inkdigits.training.export import export_line_reader
from inkdigits.training.streams.lines import LineConfig, line_loss, line_stream, prepare
from inkdigits.training.streams.loop import train_on_stream


def test_prepared_strips_begin_where_they_began_and_stay_ink():
    torch.manual_seed(0)
    strips = torch.zeros(64, 32, 128, dtype=torch.uint8)
    strips[:, 6:26, 10:14] = 255
    digits = torch.full((64, 10), -1)
    x, y = prepare(strips, digits)
    assert x.shape == (64, 1, 32, 128)
    assert y is digits
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    weight = x.sum((1, 2)) - 0.08 * 32
    middle = (weight.clamp_min(0) * torch.arange(128)).sum(1) / weight.clamp_min(0).sum(1)
    assert float((middle < 40).float().mean()) > 0.7
    assert float(middle.std()) > 1


def test_the_loss_is_nothing_for_the_truth_and_more_for_another_number():
    digits = torch.tensor([[1, 1, 7] + [-1] * 7])
    seen = torch.tensor([1, NOTHING, 1, NOTHING, 7, NOTHING])
    output = torch.nn.functional.one_hot(seen, 12).float().unsqueeze(0) * 30
    assert float(line_loss(output, digits)[0]) < 0.01
    assert float(line_loss(output, torch.tensor([[1, 7, 7] + [-1] * 7]))[0]) > 5


@pytest.mark.trains
def test_a_run_learns_and_is_exported(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("inkdigits.data.pictures.lines._POOL", 80)
    monkeypatch.setattr("inkdigits.training.streams.lines.BATCHES", {160: 8, 320: 4})
    inks, labels = digits
    given = WrittenDigits(inks, labels.astype(np.int64))
    config = LineConfig(steps=4, warm_up=1, workers=0, reuse=2)
    stream = line_stream(given, Sources(), read_network(SEGMENTER))
    weights = train_on_stream(stream, config, tmp_path / "checkpoint.pt")
    network = LineNet()
    network.load_state_dict(weights)
    session = onnxruntime.InferenceSession(export_line_reader(weights))
    for width in (24, 130, 1000):
        strip = torch.rand(1, 1, 32, width)
        with torch.inference_mode():
            expected = network.eval()(strip).numpy()
        found = session.run(["logits"], {"picture": strip.numpy()})[0]
        assert found.shape == (1, width // 2, 12)
        assert np.abs(found - expected).max() < 1e-3
