import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.pictures import difference, seven, shifted_difference

from inkdigits.ink.decode import Luminance
from inkdigits.ink.normalize import field_of, has_several, is_cut_off, normalise
from inkdigits.ink.plain import SMALL_PICTURE, find_foreground
from inkdigits.reader import preprocess

REFERENCE = preprocess(seven())


def test_polarity_comes_from_the_border_not_from_the_mean():
    assert np.array_equal(preprocess(255 - np.asarray(seven())), REFERENCE)
    thick = Image.new("L", (100, 100), 0)
    ImageDraw.Draw(thick).line([(50, 12), (50, 88)], fill=255, width=70)
    assert np.asarray(thick).mean() > 127
    assert preprocess(thick)[[14, 0], [14, 0]].tolist() == [255, 0]


def gradient(low):
    return np.add.outer(np.linspace(low, 220, 30), np.linspace(0, 30, 30)).astype(np.uint8)


@pytest.mark.parametrize(
    "blank",
    [
        gradient(60),
        Image.new("L", (28, 28), 0),
        Image.new("L", (280, 280), 255),
        Image.new("RGB", (300, 200), (40, 120, 90)),
        Image.new("RGBA", (100, 100), (0, 0, 0, 0)),
        Image.new("L", (1, 1), 128),
        Image.fromarray(np.random.default_rng(0).normal(230, 3, (200, 200)).astype(np.uint8)),
    ],
    ids=[
        "uneven light",
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


def test_pictures_of_any_shades_and_sizes_have_ink_or_none_but_no_other_error():
    rng = np.random.default_rng(0)

    def network(view):
        shape = (1, 2, *view.shape[2:])
        return rng.normal(rng.choice([-8, 0, 4]), rng.choice([1, 8]), shape).astype(np.float32)

    sides = [1, 2, 3, 20, SMALL_PICTURE, SMALL_PICTURE + 1, 100]
    for height, width in itertools.product(sides, sides):
        for background, deviation in itertools.product((0, 254), (0, 0.5, 9)):
            noise = rng.normal(background, deviation, (height, width))
            picture = np.clip(noise, 0, 255).astype(np.uint8)
            for _ in range(4):  # alike, one pixel differs, then patches
                found = find_foreground(Luminance.of(picture), network)
                field_of(found)
                has_several(found)
                is_cut_off(found)
                assert normalise(found).any() == (found.peak > 0)
                top, left = rng.integers(height), rng.integers(width)
                side = int(rng.choice([1, height // 2 + 1]))
                picture[top : top + side, left : left + side] = rng.integers(256)


def test_a_faint_patch_does_not_decide_which_side_is_ink():
    def no_network(view):
        raise AssertionError("a clean picture needs no network")

    picture = np.full((900, 900), 200, np.uint8)
    picture[400:460, 400:460] -= (255 - np.asarray(seven(60, 4))) // 4
    expected = normalise(find_foreground(Luminance.of(picture), no_network))
    picture[20:880:2, 20:390] = 204
    assert np.array_equal(normalise(find_foreground(Luminance.of(picture), no_network)), expected)


def test_what_is_written_on_a_card_is_ink_and_the_card_is_not():
    table = Image.new("L", (260, 260), 20)
    table.paste(seven(), (30, 30))
    assert shifted_difference(preprocess(table), REFERENCE) < 12


@pytest.mark.parametrize(("side", "is_asked"), [(16, False), (28, True)])
def test_rules_find_the_ink_of_the_smallest_pictures_only(side, is_asked):
    views = []
    beside_a_table = np.asarray(seven(side, 3)).copy()
    beside_a_table[:, : side // 2] //= 2
    beside_a_table[::2] -= beside_a_table[::2] // 10
    find_foreground(
        Luminance.of(beside_a_table), lambda view: views.append(view) or np.repeat(view, 2, axis=1)
    )
    assert bool(views) is is_asked


@pytest.mark.parametrize(("height", "is_doubtful"), [(60, True), (190, False), (10, False)])
def test_what_has_the_size_of_a_digit_is_not_left_out_in_silence(height, is_doubtful):
    def sees_what_is_leftmost(view):
        is_ink = view < 0
        columns = is_ink.any(axis=(0, 1, 2))
        start = columns.argmax()
        is_ink[..., start + (~columns[start:]).argmax() :] = False
        return np.repeat(np.where(is_ink, np.float32(9), np.float32(-9)), 2, axis=1)

    page = Image.new("L", (400, 200), 255)
    page.paste(seven(), (0, 0))
    ImageDraw.Draw(page).line((350, 5, 350, 5 + height), 0, 4)
    found = find_foreground(Luminance.of(np.asarray(page)), sees_what_is_leftmost)
    assert not found.values[:, 200:].any()
    assert (found.doubtful == 1) == is_doubtful


@pytest.mark.parametrize("size", [48, 90])
def test_lines_around_most_of_an_empty_cell_are_not_its_background(size):
    cell = np.full((size, size), 240, np.uint8)
    cell[:, :2] = cell[:, -2:] = cell[:2] = 30
    asked = []

    def see_nothing(view):
        asked.append(view.shape)
        return np.full_like(view, -9.0).repeat(2, axis=1)

    assert find_foreground(Luminance.of(cell), see_nothing).peak <= 0.0
    assert asked


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
