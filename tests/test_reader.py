from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.pictures import encoded, seven

import inkdigits
from inkdigits.errors import (
    ArtifactCorruptError,
    ConfigError,
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
)
from inkdigits.ink.png import encode_png
from inkdigits.reader import BATCH_SIZE, DigitReader


@pytest.fixture(scope="module")
def reader():
    return inkdigits.load()


def test_seven_is_read_as_7(reader):
    prediction = reader.predict(seven())
    assert prediction.digit == 7
    assert prediction.confidence > 0.9
    assert prediction.confidence == max(prediction.probabilities)
    assert sum(prediction.probabilities) == pytest.approx(1)
    assert prediction.model_version == reader.model_version
    assert np.array_equal(prediction.ink, inkdigits.preprocess(seven()))
    assert prediction.preprocessing_ms > 0
    assert prediction.inference_ms > 0


def test_every_kind_of_picture_is_read(reader, tmp_path):
    path = tmp_path / "seven.png"
    path.write_bytes(encoded(seven()))
    kinds = [path, str(path), path.read_bytes(), seven(), np.asarray(seven())]
    predictions = [reader.predict(kind) for kind in kinds]
    assert {p.digit for p in predictions} == {7}
    assert len({p.confidence for p in predictions}) == 1


def test_blank_picture_is_rejected_as_blank_and_not_guessed(reader):
    prediction = reader.predict(Image.new("L", (280, 280), 255))
    assert (prediction.digit, prediction.confidence, prediction.novelty) == (None, 0.0, None)
    assert (prediction.decision, prediction.reason) == ("reject", "blank")
    assert prediction.probabilities == (0.1,) * 10
    assert not prediction.ink.any()


def test_order_is_kept_across_batches_blanks_and_errors(reader, digits):
    inks, _ = digits
    pictures = list(inks[: 2 * BATCH_SIZE])
    pictures[3] = b"not a picture"
    pictures[5] = np.zeros((28, 28), np.uint8)
    assert reader.predict_batch([]) == []
    answers = reader.predict_batch(pictures, on_error="return")
    assert len(answers) == len(pictures)
    assert isinstance(answers[3], ImageError)
    assert answers[5].reason == "blank"
    for place in (0, 4, 6, BATCH_SIZE, 2 * BATCH_SIZE - 1):
        alone = reader.predict(pictures[place])
        assert alone.digit == answers[place].digit
        assert alone.probabilities == pytest.approx(answers[place].probabilities, abs=1e-5)


@pytest.mark.parametrize("read", ["predict", "explain"])
def test_picture_that_cannot_be_read_raises_by_default(reader, read):
    with pytest.raises(UnreadableImageError):
        getattr(reader, read)(b"not a picture")
    with pytest.raises(UnreadableImageError):
        reader.predict_batch([seven(), b"not a picture"])


def test_limits_given_to_load_hold():
    strict = inkdigits.load(limits=inkdigits.Limits(max_pixels=100))
    with pytest.raises(ImageTooLargeError):
        strict.predict(seven())


def test_threads_get_their_own_predictions(reader, digits):
    inks = digits[0][:40]
    expected = [reader.predict(ink).probabilities for ink in inks]
    with ThreadPoolExecutor(4) as pool:
        assert [p.probabilities for p in pool.map(reader.predict, inks)] == expected


def test_onnx_runtime_and_pytorch_give_the_same_predictions(reader, digits):
    pictures = list(digits[0][:300])
    ours = reader.predict_batch(pictures)
    theirs = inkdigits.load(device="cpu").predict_batch(pictures)
    for one, other in zip(ours, theirs, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert one.novelty == pytest.approx(other.novelty, abs=1e-3)


def test_digits_by_other_writers_are_read(reader, digits):
    inks, labels = digits
    read = np.array([p.digit for p in reader.predict_batch(list(inks))])
    assert (read == labels).mean() > 0.9


@pytest.mark.mnist
def test_mnist_is_read_and_rejected_as_often_as_the_artifact_says(reader, mnist_test):
    inks, labels = mnist_test
    predictions = reader.predict_batch([encode_png(ink) for ink in inks])
    n_correct = sum(p.digit == label for p, label in zip(predictions, labels, strict=True))
    assert n_correct == reader.metadata.provenance["test"]["n_correct"]
    rejected = sum(p.reason == "not_a_digit" for p in predictions)
    # Among 10,000 the share varies by some 0.1 points from the tolerated one.
    assert rejected / len(predictions) <= reader.metadata.policy.rejected_share + 0.002


@pytest.mark.parametrize(
    ("logits", "problem"),
    [(np.zeros((2, 11)), r"\(2, 11\)"), (np.full((2, 10), np.nan), "not finite")],
)
def test_model_with_invalid_logits_is_rejected_at_start(reader, logits, problem):
    class Broken:
        def forward(self, batch):
            return logits.astype(np.float32), np.ones((len(batch), 128), np.float32)

    with pytest.raises(ArtifactCorruptError, match=problem):
        DigitReader(Broken(), reader.metadata)


def deciding(reader, policy):
    """A reader with the same network and another policy."""
    return DigitReader(reader._backend, replace(reader.metadata, policy=policy))


def test_ink_above_the_novelty_threshold_is_rejected_but_still_read(reader):
    novelty = reader.predict(seven()).novelty
    policy = replace(reader.metadata.policy, novelty_threshold=novelty - 1e-6)
    prediction = deciding(reader, policy).predict(seven())
    assert (prediction.decision, prediction.reason) == ("reject", "not_a_digit")
    assert (prediction.digit, prediction.novelty) == (7, novelty)
    policy = replace(policy, novelty_threshold=novelty)
    assert deciding(reader, policy).predict(seven()).decision == "accept"


def test_noise_is_less_like_a_digit_than_most_digits(reader, digits):
    noise = np.zeros((50, 28, 28), np.uint8)
    noise[:, 4:24, 4:24] = np.random.default_rng(0).integers(0, 256, (50, 20, 20))
    others = [p.novelty for p in reader.predict_batch(list(noise))]
    known = [p.novelty for p in reader.predict_batch(list(digits[0][:200]))]
    assert np.greater.outer(others, known).mean() > 0.7


def test_stated_risk_decides_and_comes_back_with_its_coverage(reader):
    own = reader.predict(seven())
    assert (own.decision, own.risk, own.coverage) == ("accept", None, None)
    stated = reader.predict(seven(), risk=0.03)
    choice = reader.metadata.policy.choice(0.03)
    assert choice.risk == 0.02
    assert (stated.decision, stated.risk, stated.coverage) == ("accept", 0.03, choice.coverage)
    impossible = reader.predict(seven(), risk=1e-9)
    assert (impossible.decision, impossible.reason) == ("review", None)
    assert (impossible.risk, impossible.coverage) == (1e-9, 0.0)


def test_risk_given_to_load_holds_until_another_is_stated():
    strict = inkdigits.load(risk=1e-9)
    assert [p.decision for p in strict.predict_batch([seven()] * 2)] == ["review"] * 2
    assert strict.predict(seven(), risk=0.05).decision == "accept"


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, float("nan")])
def test_risk_out_of_range_is_an_error(reader, risk):
    with pytest.raises(ConfigError, match="risk"):
        reader.predict(seven(), risk=risk)
    with pytest.raises(ConfigError, match="risk"):
        inkdigits.load(risk=risk)
