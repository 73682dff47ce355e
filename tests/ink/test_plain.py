import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.pictures import difference, seven, shifted_difference

from inkdigits.reader import preprocess

REFERENCE = preprocess(seven())


def test_polarity_comes_from_the_border_not_from_the_mean():
    assert np.array_equal(preprocess(255 - np.asarray(seven())), REFERENCE)
    thick = Image.new("L", (100, 100), 0)
    ImageDraw.Draw(thick).line([(50, 12), (50, 88)], fill=255, width=70)
    assert np.asarray(thick).mean() > 127
    assert preprocess(thick)[[14, 0], [14, 0]].tolist() == [255, 0]


def gradient(low):
    light = np.add.outer(np.linspace(low, 265, 30), np.linspace(0, 30, 30))
    return np.clip(light, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "blank",
    [
        *(gradient(190), gradient(225)),
        Image.new("L", (28, 28), 0),
        Image.new("L", (280, 280), 255),
        Image.new("RGB", (300, 200), (40, 120, 90)),
        Image.new("RGBA", (100, 100), (0, 0, 0, 0)),
        Image.new("L", (1, 1), 128),
        Image.fromarray(np.random.default_rng(0).normal(230, 3, (200, 200)).astype(np.uint8)),
    ],
    ids=[
        "saturated light",
        "brighter light",
        "black",
        "white",
        "coloured",
        "transparent",
        "one pixel",
        "noisy",
    ],
)
def test_blank_picture_has_no_ink(blank):
    assert not preprocess(blank).any()


def test_neither_noise_nor_specks_nor_a_frame_move_the_digit():
    noise = np.random.default_rng(0).normal(0, 6, (200, 200))
    noisy = np.clip(np.asarray(seven()) * 0.8 + 20 + noise, 0, 255).astype(np.uint8)
    assert shifted_difference(preprocess(noisy), REFERENCE) < 20
    dirty = seven()
    draw = ImageDraw.Draw(dirty)
    draw.rectangle([12, 10, 188, 190], outline=60, width=2)
    for x, y in [(3, 4), (195, 30), (30, 180), (150, 20)]:
        draw.ellipse([x, y, x + 2, y + 2], fill=0)
    assert difference(preprocess(dirty), REFERENCE) < 2


def test_two_digits_stay_two():
    page = Image.new("L", (400, 200), 255)
    page.paste(seven(), (0, 0))
    page.paste(seven(), (190, 0))
    highest = preprocess(page).max(axis=0)
    assert highest.max() > 100
    assert np.count_nonzero(np.diff((highest > 60).astype(int)) == 1) == 2


@pytest.mark.parametrize("size", [8, 16, 32])
@pytest.mark.parametrize("light_on_dark", [False, True])
def test_digit_that_fills_the_picture_keeps_its_polarity(size, light_on_dark):
    grid = np.zeros((8, 8), np.uint8)
    grid[0] = grid[7] = grid[:, 7] = grid[3:5, 2:] = 255
    grid[0, 0] = grid[7, 0] = grid[0, 7] = 0  # ink on 19 of the border's 28 pixels
    picture = np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.NEAREST))
    ink = preprocess(picture if light_on_dark else 255 - picture)
    assert ink[:, 12:].max(axis=1)[6:22].min() > 90  # the stem on the right
    assert ink[9, 8] < 60  # background between the bars


def test_uneven_light_is_removed_from_a_small_picture():
    digit = np.zeros((28, 28))
    digit[5:23, 13:16] = digit[5:8, 9:16] = 1
    light = np.add.outer(np.linspace(100, 150, 28), np.linspace(0, 70, 28))
    ink = preprocess(np.rint(light * (1 - 0.7 * digit)).astype(np.uint8))
    assert shifted_difference(ink, preprocess((digit * 255).astype(np.uint8))) < 6
