from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.pictures import encoded, seven

import inkdigits
from inkdigits.data.pictures.numbers import WrittenDigits, write_numbers
from inkdigits.errors import (
    ArtifactCorruptError,
    ConfigError,
    HintError,
    ImageTooLargeError,
    UnreadableImageError,
)
from inkdigits.ink.png import encode_png
from inkdigits.model.backends import Backend
from inkdigits.reader import BATCH_SIZE, DigitReader


@pytest.fixture(scope="module")
def reader():
    return inkdigits.load()


def test_seven_is_read_as_7_in_every_kind_of_picture(reader, tmp_path):
    prediction = reader.predict(seven())
    assert prediction.digit == 7
    assert prediction.confidence == max(prediction.probabilities) > 0.9
    assert sum(prediction.probabilities) == pytest.approx(1)
    assert prediction.model_version == reader.model_version
    assert np.array_equal(prediction.ink, inkdigits.preprocess(seven()))
    assert min(prediction.preprocessing_ms, prediction.inference_ms) > 0
    path = tmp_path / "seven.png"
    path.write_bytes(encoded(seven()))
    for kind in (path, str(path), path.read_bytes(), np.asarray(seven())):
        assert reader.predict(kind).probabilities == prediction.probabilities


def test_the_plain_network_comes_with_the_package_and_reads_too():
    plain = inkdigits.load("MNISTClassifier")
    assert plain.metadata.architecture == "MNISTClassifier"
    assert plain.predict(seven()).digit == 7


def test_blank_picture_is_rejected_as_blank_and_not_guessed(reader):
    found = reader.predict(Image.new("L", (280, 280), 255))
    assert (found.digit, found.confidence, found.probabilities) == (None, 0.0, (0.1,) * 10)
    assert (found.decision, found.reason, found.novelty) == ("reject", "blank", None)
    assert not found.ink.any()


def test_order_is_kept_across_batches_blanks_and_errors(reader, digits):
    inks, _ = digits
    pictures = list(inks[: 2 * BATCH_SIZE])
    pictures[3] = b"not a picture"
    pictures[5] = np.zeros((28, 28), np.uint8)
    assert reader.predict_batch([]) == []
    answers = reader.predict_batch(pictures, on_error="return")
    assert len(answers) == len(pictures)
    assert isinstance(answers[3], UnreadableImageError)
    assert answers[5].reason == "blank"
    for place in (0, 4, 6, BATCH_SIZE, 2 * BATCH_SIZE - 1):
        alone = reader.predict(pictures[place])
        assert alone.digit == answers[place].digit
        assert alone.probabilities == pytest.approx(answers[place].probabilities, abs=1e-5)


def test_picture_that_cannot_be_read_raises_by_default(reader):
    for read in (reader.predict, reader.explain, lambda one: reader.predict_batch([seven(), one])):
        with pytest.raises(UnreadableImageError):
            read(b"not a picture")


def test_limits_and_risk_given_to_load_hold_until_another_is_stated():
    strict = inkdigits.load(risk=1e-9)
    assert [p.decision for p in strict.predict_batch([seven()] * 2)] == ["review"] * 2
    assert strict.predict(seven(), risk=0.05).decision == "accept"
    with pytest.raises(ImageTooLargeError):
        inkdigits.load(limits=inkdigits.Limits(max_pixels=100)).predict(seven())


def test_threads_get_their_own_predictions(reader, digits):
    inks = digits[0][:40]
    expected = [reader.predict(ink).probabilities for ink in inks]
    with ThreadPoolExecutor(4) as pool:
        assert [p.probabilities for p in pool.map(reader.predict, inks)] == expected


def test_digits_by_other_writers_are_read_alike_by_onnx_runtime_and_pytorch(digits):
    ours = inkdigits.load(int8=False).predict_batch(list(digits[0]))
    assert np.mean([p.digit for p in ours] == digits[1]) > 0.9
    theirs = inkdigits.load(device="cpu").predict_batch(list(digits[0][:300]))
    for one, other in zip(ours, theirs, strict=False):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert one.novelty == pytest.approx(other.novelty, abs=1e-3)


def test_number_of_several_digits_is_read_with_its_boxes(reader):
    line = np.full((1200, 3300), 255, np.uint8)
    for left in (100, 1100, 2100):
        line[100:1100, left : left + 1000] = np.asarray(seven(1000, 80))
    found = reader.read(line, length=(1, 8))
    assert (found.text, found.model_version) == ("777", reader.model_version)
    # The 7 has 30 % of its square to the left, and so much above it.
    assert [round(d.box[0] / 100) for d in found.digits] == pytest.approx([4, 14, 24], abs=1)
    assert found.digits[0].box[3] == pytest.approx(600, abs=100)
    assert found.digits[0].ink.shape == (28, 28)
    assert found.total_ms > 0
    second = reader.read_regions(line, [(1000, 0, 1200, 1200)])[0]
    assert second.text == "7"
    assert second.digits[0].box[0] == pytest.approx(found.digits[1].box[0], abs=30)
    with pytest.raises(HintError, match="not inside"):
        reader.read_regions(line, [(0, 0, 4000, 10)])


@pytest.mark.parametrize("gap", [4, 20, 60])
def test_several_digits_are_rejected_as_such(reader, gap):
    line = np.full((140, 220 + gap), 255, np.uint8)
    for left in (10, 110 + gap):
        line[20:120, left : left + 100] = np.asarray(seven(100, 8))
    found = reader.predict(line)
    assert (found.decision, found.reason) == ("reject", "several_digits")
    assert found.number is not None
    again = reader.read(line)
    assert (str(found.number), found.number.text) == (str(again), again.text)
    assert [digit.box for digit in found.number.digits] == [digit.box for digit in again.digits]


@pytest.mark.parametrize(
    ("pen", "expected"),
    [(6, ("review", None)), (10, ("reject", "not_a_digit")), (14, ("reject", "not_a_digit"))],
)
def test_a_letter_is_neither_a_line_beside_a_digit_nor_several_digits(reader, pen, expected):
    letter = Image.new("L", (200, 240), 255)
    draw = ImageDraw.Draw(letter)
    draw.line([(75, 40), (60, 40), (60, 198), (75, 198)], fill=0, width=pen)
    draw.line([(60, 116), (75, 116)], fill=0, width=pen)
    draw.arc([10, 40, 140, 120], -90, 90, fill=0, width=pen)
    draw.arc([0, 110, 150, 200], -90, 90, fill=0, width=pen)
    found = reader.predict(letter)
    assert (found.decision, found.reason) == expected


@pytest.mark.parametrize(("side", "left"), [(80, 200), (50, 600)])
def test_a_small_second_digit_is_several_digits(reader, side, left):
    page = Image.new("L", (left + 100, 200), 255)
    page.paste(seven(), (0, 0))
    page.paste(seven(side, 8), (left, 60))
    assert reader.predict(page).reason == "several_digits"


def test_a_cut_digit_is_cut_off(reader):
    cut = reader.predict(seven().crop((0, 80, 200, 200)))
    assert (cut.decision, cut.reason) == ("reject", "cut_off")
    assert reader.predict(seven().crop((20, 40, 180, 200))).decision == "accept"


def test_neither_doubtful_ink_nor_ink_that_may_run_into_an_edge_is_accepted(reader):
    noise = np.random.default_rng(0).normal(0, 9, (200, 200))
    photo = np.clip(0.7 * np.asarray(seven()) + 30 + noise, 0, 255).astype(np.uint8)
    assert reader.predict(photo).decision == "accept"
    doubting = DigitReader(
        reader._backend,
        reader.metadata,
        lambda view: np.minimum(reader._segmenter(view), 2.0),
        reader._line_reader,
    )
    assert doubting.predict(photo).digit == 7
    assert doubting.predict(photo).decision == "review"
    at_edge = np.asarray(seven().crop((20, 40, 180, 156))).copy()
    at_edge[-1] = np.maximum(at_edge[-1], 60)
    reading = reader.predict(at_edge)
    assert (reading.digit, reading.decision) == (7, "review")


def test_spaced_numbers_by_other_writers_are_read(reader, digits):
    given = WrittenDigits(digits[0], digits[1].astype(np.int64))
    numbers = write_numbers(given, 25, np.random.default_rng(3), "spaced", signs=0.0)
    found = reader.read_batch([number.picture for number in numbers])
    right = [one.text == number.text for one, number in zip(found, numbers, strict=True)]
    assert np.mean(right) >= 0.6
    assert all(ok for one, ok in zip(found, right, strict=True) if one.decision == "accept")


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
    class Broken(Backend):
        def forward(self, batch):
            return logits.astype(np.float32), np.ones((len(batch), 128), np.float32)

    with pytest.raises(ArtifactCorruptError, match=problem):
        DigitReader(Broken(), reader.metadata, reader._segmenter, reader._line_reader)


def test_ink_above_the_novelty_threshold_is_rejected_but_still_read(reader):
    novelty = reader.predict(seven()).novelty
    for lower, decided in ((1e-6, ("reject", "not_a_digit")), (0.0, ("accept", None))):
        policy = replace(reader.metadata.policy, novelty_threshold=novelty - lower)
        metadata = replace(reader.metadata, policy=policy)
        other = DigitReader(reader._backend, metadata, reader._segmenter, reader._line_reader)
        prediction = other.predict(seven())
        assert (prediction.decision, prediction.reason) == decided
        assert (prediction.digit, prediction.novelty) == (7, novelty)


def test_noise_is_less_like_a_digit_than_most_digits(reader, digits):
    noise = np.random.default_rng(0).integers(0, 256, (50, 20, 20)).astype(np.uint8)
    pictures = [*np.pad(noise, ((0, 0), (4, 4), (4, 4))), *digits[0][:200]]
    novelty = [p.novelty for p in reader.predict_batch(pictures)]
    assert np.greater.outer(novelty[:50], novelty[50:]).mean() > 0.7


def test_stated_risk_decides_and_comes_back_with_its_coverage(reader):
    choice = reader.metadata.policy.choice(0.03)
    assert choice.risk == 0.02
    decided = {None: ("accept", None), 0.03: ("accept", choice.coverage), 1e-9: ("review", 0.0)}
    for risk, expected in decided.items():
        found = reader.predict(seven(), risk=risk)
        assert (found.decision, found.coverage) == expected
        assert (found.reason, found.risk) == (None, risk)


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, float("nan")])
def test_risk_out_of_range_is_an_error(reader, risk):
    with pytest.raises(ConfigError, match="risk"):
        reader.predict(seven(), risk=risk)
    with pytest.raises(ConfigError, match="risk"):
        inkdigits.load(risk=risk)


@pytest.mark.parametrize(("wide", "high"), [(38, 38), (51, 51), (88, 51)])
def test_lines_at_two_sides_of_a_cell_are_not_taken_for_its_background(reader, wide, high):
    sheet = np.full((4 * high + 1, 4 * wide + 1), 225, np.uint8)
    sheet[::high], sheet[:, ::wide] = 30, 30
    digit = np.asarray(seven().convert("L").resize((24, 24)))
    cells = []
    for row in range(4):
        for column in range(4):
            cells.append((column * wide, row * high, wide, high))
            top, left = row * high + high // 2 - 12, column * wide + wide // 2 - 12
            part = sheet[top : top + 24, left : left + 24]
            part[...] = np.minimum(part, 225 - digit.astype(np.int32) * 140 // 255)
    found = reader.read_regions(sheet, cells, length=(1, 1))
    assert [one.text for one in found] == ["7"] * 16
    for (left, top, _, _), one in zip(cells, found, strict=True):
        at_left, at_top, width, height = one.digits[0].box
        assert left < at_left < left + wide // 2
        assert top < at_top < top + high // 2
        assert width <= height < 24
