import numpy as np
import pytest
import torch

from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import KINDS, make_pair
from inkdigits.model.networks import InkNet
from inkdigits.training.export import export_segmenter
from inkdigits.training.streams.loop import train_on_stream
from inkdigits.training.streams.segmenter import (
    BATCHES,
    SegmentConfig,
    ink_stream,
    prepare,
    segment_loss,
    views,
)


@pytest.fixture(scope="module")
def sources(digits) -> Sources:
    return Sources(*digits)


@pytest.mark.parametrize("kind", KINDS)
def test_views_have_sizes_that_are_learned_and_show_the_ink(sources, kind):
    generator = np.random.default_rng(2)
    for _ in range(8):
        pair = make_pair(generator, sources, kind)
        for size, shades, targets in views(pair, generator):
            assert size in BATCHES
            assert shades.shape == size
            assert targets.shape == (2, *size)
            assert shades.dtype == targets.dtype == np.uint8
            assert bool(targets[0].any()) <= bool(pair.ink.any())


def test_prepared_views_are_standardised_and_targets_move_with_them():
    torch.manual_seed(0)
    shades = torch.full((4, 64, 64), 220, dtype=torch.uint8)
    shades[:, 10:20, 5:30] = 30
    targets = torch.zeros(4, 2, 64, 64, dtype=torch.uint8)
    targets[:, 0, 10:20, 5:30] = 255
    for _ in range(10):
        x, y = prepare(shades, targets)
        assert float(x.mean().abs()) < 1e-4
        for picture, ink in zip(x[:, 0], y[:, 0] > 0.5, strict=True):
            assert picture[ink].std() < 1e-3
            assert abs(float(picture[ink].mean() - picture[~ink].mean())) > 1


def test_the_loss_falls_to_nothing_at_the_truth_and_counts_thin_strokes_more():
    targets = torch.zeros(1, 2, 64, 64)
    targets[:, 0, 30, 10:50] = 1
    right = (targets * 2 - 1) * 20
    assert all(float(loss) < 0.02 for loss in segment_loss(right, targets, 4.0))
    nothing = torch.full((1, 2, 64, 64), -20.0)
    plain, heavy = (segment_loss(nothing, targets, thin)[0] for thin in (0.0, 4.0))
    assert heavy > 2 * plain


@pytest.mark.trains
def test_a_run_learns_is_resumed_and_exported(sources, tmp_path):
    checkpoint, stream = tmp_path / "checkpoint.pt", ink_stream(sources, 8.0)
    config = SegmentConfig(steps=4, warm_up=1, workers=0, reuse=2)
    train_on_stream(stream, config, checkpoint)
    more = SegmentConfig(steps=8, warm_up=1, workers=0, reuse=2)
    weights = train_on_stream(stream, more, checkpoint, resume=True)
    assert torch.load(checkpoint, weights_only=True)["step"] == 8
    network = InkNet()
    network.load_state_dict(weights)
    batch = torch.randn(1, 1, 96, 320)
    with torch.inference_mode():
        expected = network.eval()(batch).numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(export_segmenter(weights))
    found = session.run(None, {"picture": batch.numpy()})[0]
    assert np.abs(found - expected).max() < 1e-3
