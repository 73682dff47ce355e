import numpy as np
import onnx
import pytest
import torch

import inkdigits
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.errors import ArtifactCorruptError
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import read_artifact
from inkdigits.model.backends import OnnxBackend, TorchBackend, forward_with_tta
from inkdigits.model.networks import MNISTClassifier
from inkdigits.training.calibrate import _logits
from inkdigits.training.export import export

POLICY = DecisionPolicy(None, 0.01, 0.95)
HEAD = np.random.default_rng(0).normal(size=(28 * 28, 10)).astype(np.float32)


def test_onnx_runtime_and_pytorch_agree(digits):
    batch = standardise(digits[0][:1000])
    for theirs, ours in zip(
        TorchBackend(read_artifact(), "cpu").forward(batch),
        OnnxBackend(read_artifact(), threads=1, int8=False).forward(batch),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_artifact_with_other_outputs_is_rejected():
    proto = onnx.load_model_from_string(read_artifact())
    del proto.graph.output[1]
    with pytest.raises(ArtifactCorruptError, match="outputs are logits, not logits and features"):
        OnnxBackend(proto.SerializeToString(), threads=1)


class Linear:
    """A network with a known answer, that counts what it is asked."""

    def __init__(self, scale=1.0):
        self.head = HEAD * np.float32(scale)
        self.asked = []

    def __call__(self, batch):
        self.asked.append(len(batch))
        features = batch.reshape(len(batch), -1)
        return features @ self.head, features


def inks(n):
    """Ink with background around it, as preprocessing leaves it."""
    ink = np.random.default_rng(1).integers(0, 256, (n, 20, 20))
    return np.pad(ink, ((0, 0), (4, 4), (4, 4))).astype(np.uint8)


def mean_of_five(network, some):
    moves = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
    views = [network(standardise(np.roll(some, move, axis=(1, 2)))) for move in moves]
    return np.mean([v[0] for v in views], axis=0), np.mean([v[1] for v in views], axis=0)


def test_certain_outputs_stay_as_they_are_and_uncertain_ones_become_the_mean_of_five():
    some, network = inks(40), Linear(0.01)
    once = network(standardise(some))
    gaps = np.diff(np.sort(once[0], axis=1)[:, -2:])[:, 0]
    uncertain = gaps < np.median(gaps)
    assert 0 < uncertain.sum() < len(some)
    network.asked.clear()
    logits, features = forward_with_tta(network, standardise(some), float(np.median(gaps)))
    assert sum(network.asked) == 40 + 4 * uncertain.sum()
    assert max(network.asked) == 40
    means = mean_of_five(network, some[uncertain])
    for found, first, mean in zip((logits, features), once, means, strict=True):
        assert found.dtype == np.float32
        assert np.array_equal(found[~uncertain], first[~uncertain])
        np.testing.assert_allclose(found[uncertain], mean, atol=1e-4)
    np.testing.assert_allclose(features @ network.head, logits, atol=1e-4)


def test_margin_decides_which_ink_is_read_again_and_outputs_are_not_overwritten():
    some = standardise(inks(3))
    for margin, calls in ((0.0, 1), (1e9, 4)):
        network = Linear()
        forward_with_tta(network, some, margin)
        assert len(network.asked) == calls
    kept = network(some)
    before = [part.copy() for part in kept]
    forward_with_tta(lambda batch: kept if len(batch) == 3 else network(batch), some, 1e9)
    assert all(np.array_equal(a, b) for a, b in zip(kept, before, strict=True))


@pytest.mark.parametrize("margin", [0.0, 1e6])
def test_reader_goes_by_the_margin_of_its_artifact(tmp_path, margin):
    torch.manual_seed(3)
    content = export(MNISTClassifier().state_dict(), 1.0, POLICY, {}, second_look_margin=margin)
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    reader, network = inkdigits.load(path), OnnxBackend(content, 1)
    some = inks(5)
    expected = mean_of_five(network.forward, some) if margin else network.forward(standardise(some))
    for found, meant in zip(reader.logits_and_features(some), expected, strict=True):
        np.testing.assert_allclose(found, meant, atol=1e-4)
    np.testing.assert_allclose(reader.logits(standardise(some)), expected[0], atol=1e-4)


@pytest.mark.heavy
def test_operating_point_is_fitted_to_the_logits_of_the_reader(tmp_path):
    torch.manual_seed(3)
    model = MNISTClassifier().eval()
    path = tmp_path / "model.onnx"
    path.write_bytes(export(model.state_dict(), 1.0, POLICY, {}))
    some = inks(520)
    found = _logits(model, torch.from_numpy(some))
    np.testing.assert_allclose(found, inkdigits.load(path).logits(standardise(some)), atol=1e-4)
