import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.pictures import seven

import inkdigits
from inkdigits.errors import ConfigError
from inkdigits.explain import SCALE, occlusion, overlay


@pytest.fixture(scope="module")
def reader():
    return inkdigits.load()


def read_upper_half(inks):
    """Digit 3 with the share of ink in the upper half, digit 4 with the rest."""
    upper, lower = (half.sum(axis=(1, 2), dtype=float) for half in (inks[:, :14], inks[:, 14:]))
    shares = np.zeros((len(inks), 10))
    shares[:, 3] = (upper + 1) / (upper + lower + 2)
    shares[:, 4] = 1 - shares[:, 3]
    return shares


def test_hiding_evidence_lowers_the_odds_and_hiding_evidence_against_raises_them():
    bars = np.zeros((28, 28), np.uint8)
    bars[4:9, 8:20] = bars[19:24, 8:20] = 255
    saliency = occlusion(read_upper_half, bars, 3)
    assert (saliency.shape, saliency.dtype) == ((28, 28), np.float32)
    assert saliency[4:9, 8:20].min() > 0 > saliency[19:24, 8:20].max()
    assert occlusion(read_upper_half, bars, 4)[4:9, 8:20].max() < 0
    assert not saliency[:, [0, 1, 2, 25, 26, 27]].any()


def test_saliency_is_the_mean_loss_of_the_patches_over_a_pixel():
    ink = np.zeros((28, 28), np.uint8)
    ink[0, 0] = ink[27, 27] = 255
    saliency = occlusion(read_upper_half, ink, 3)
    # Hidden by patches that cover nothing else, so each costs the same.
    # The odds are 256 to 256, 1 to 256 without the upper pixel and 256 to 1 without the lower.
    assert saliency[0, 0] == pytest.approx(np.log(256), rel=1e-6)
    assert saliency[27, 27] == pytest.approx(-np.log(256), rel=1e-6)


def test_explanation_belongs_to_the_reading_and_a_blank_picture_has_none(reader):
    explanation = reader.explain(seven())
    plain = reader.predict(seven())
    assert explanation.prediction.probabilities == plain.probabilities
    assert explanation.prediction.digit == 7
    others = [p for digit, p in enumerate(plain.probabilities) if digit != 7]
    assert explanation.runner_up_probability == max(others)
    assert plain.probabilities[explanation.runner_up] == max(others)
    assert explanation.overlay == overlay(plain.ink, explanation.saliency)
    assert explanation.saliency.max() > 0
    assert reader.explain(seven(), risk=1e-9).prediction.decision == "review"
    with pytest.raises(ConfigError, match="risk"):
        reader.explain(seven(), risk=2)
    blank = reader.explain(Image.new("L", (50, 50), 255))
    assert blank.prediction.reason == "blank"
    assert (blank.runner_up, blank.runner_up_probability) == (None, 0.0)
    assert not blank.saliency.any()
    # Where a patch hides no ink, hiding it changes nothing.
    reached = ndimage.maximum_filter(plain.ink, 2 * 4 + 1)
    assert not explanation.saliency[reached == 0].any()


def test_overlay_is_white_with_dark_ink_orange_for_and_blue_against():
    ink = np.zeros((28, 28), np.uint8)
    ink[0, 0] = 255
    saliency = np.zeros((28, 28), np.float32)
    saliency[1, 1], saliency[2, 2] = 3, -3
    with Image.open(io.BytesIO(overlay(ink, saliency))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (28 * SCALE, 28 * SCALE))
        pixels = np.asarray(image)[::SCALE, ::SCALE].astype(int)
    assert pixels[9, 9].tolist() == [255, 255, 255]
    assert pixels[0, 0].max() < 60
    assert pixels[1, 1, 0] > pixels[1, 1, 2] + 100
    assert pixels[2, 2, 2] > pixels[2, 2, 0] + 100
