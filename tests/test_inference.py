import threading

import numpy as np
import pytest
from PIL import Image
from test_preprocessing import encoded, seven

import inkdigits
from inkdigits.errors import (
    ArtifactCorruptError,
    BackendUnavailableError,
    ImageError,
    ImageTooLargeError,
)
from inkdigits.inference import BATCH_SIZE, DigitReader


@pytest.fixture(scope="module")
def reader():
    return inkdigits.load()


@pytest.fixture(scope="module")
def torch_reader():
    return inkdigits.load(device="cpu")


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


def test_every_kind_of_picture_is_taken(reader, tmp_path):
    path = tmp_path / "seven.png"
    path.write_bytes(encoded(seven()))
    kinds = [path, str(path), path.read_bytes(), seven(), np.asarray(seven())]
    predictions = [reader.predict(kind) for kind in kinds]
    assert {p.digit for p in predictions} == {7}
    assert len({p.confidence for p in predictions}) == 1


def test_blank_picture_is_rejected_as_blank_and_not_guessed(reader):
    prediction = reader.predict(Image.new("L", (280, 280), 255))
    assert (prediction.digit, prediction.confidence) == (None, 0.0)
    assert (prediction.decision, prediction.reason) == ("reject", "blank")
    assert prediction.probabilities == (0.1,) * 10
    assert not prediction.ink.any()


def test_order_is_kept_across_batches_blanks_and_errors(reader, digits):
    inks, _ = digits
    pictures: list = list(inks[: 2 * BATCH_SIZE])
    pictures[3] = b"not a picture"
    pictures[5] = np.zeros((28, 28), np.uint8)
    answers = reader.predict_batch(pictures, on_error="return")
    assert len(answers) == len(pictures)
    assert isinstance(answers[3], ImageError)
    assert answers[5].reason == "blank"
    for place in (0, 4, 6, BATCH_SIZE, 2 * BATCH_SIZE - 1):
        alone = reader.predict(pictures[place])
        assert alone.digit == answers[place].digit
        assert alone.probabilities == pytest.approx(answers[place].probabilities, abs=1e-5)


def test_picture_that_cannot_be_read_raises_by_default(reader):
    with pytest.raises(ImageError):
        reader.predict_batch([seven(), b"not a picture"])


def test_no_pictures_no_answers(reader):
    assert reader.predict_batch([]) == []


def test_limits_given_to_load_hold():
    strict = inkdigits.load(limits=inkdigits.Limits(max_pixels=100))
    with pytest.raises(ImageTooLargeError):
        strict.predict(seven())


def test_threads_get_their_own_answers(reader, digits):
    inks = digits[0][:40]
    expected = [reader.predict(ink).probabilities for ink in inks]
    found: list = [None] * len(inks)

    def work(start: int) -> None:
        for i in range(start, len(inks), 4):
            found[i] = reader.predict(inks[i]).probabilities

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_onnx_runtime_and_pytorch_agree_on_1000_pictures(reader, torch_reader, digits):
    pictures = list(digits[0][:1000])
    onnx = np.array([p.probabilities for p in reader.predict_batch(pictures)])
    torch = np.array([p.probabilities for p in torch_reader.predict_batch(pictures)])
    assert np.abs(onnx - torch).max() < 1e-4


def test_digits_by_other_writers_are_read(reader, digits):
    inks, labels = digits
    read = np.array([p.digit for p in reader.predict_batch(list(inks))])
    assert (read == labels).mean() > 0.9


@pytest.mark.mnist
def test_mnist_is_read_as_well_as_the_model_card_says(reader, mnist_test):
    inks, labels = mnist_test
    read = [p.digit for p in reader.predict_batch([encoded(Image.fromarray(i)) for i in inks])]
    test = reader.metadata.provenance["test"]
    assert int((np.array(read) == labels).sum()) == test["n_correct"]


def test_model_that_answers_in_another_shape_is_refused_at_start(reader):
    class Wrong:
        def logits(self, batch):
            return np.zeros((len(batch), 11), np.float32)

    with pytest.raises(ArtifactCorruptError, match=r"\(2, 11\)"):
        DigitReader(Wrong(), reader.metadata)


def test_model_that_answers_nan_is_refused_at_start(reader):
    class Broken:
        def logits(self, batch):
            return np.full((len(batch), 10), np.nan, np.float32)

    with pytest.raises(ArtifactCorruptError, match="not finite"):
        DigitReader(Broken(), reader.metadata)


def test_device_that_is_not_here_is_an_error():
    import torch

    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(BackendUnavailableError, match=missing):
        inkdigits.load(device=missing)
