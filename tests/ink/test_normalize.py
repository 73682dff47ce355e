from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage
from support.pictures import difference, encoded, seven, shifted_difference

from inkdigits.ink.decode import Luminance
from inkdigits.ink.normalize import (
    field_of,
    has_several,
    is_certain,
    is_cut_off,
    normalise,
    standardise,
)
from inkdigits.ink.plain import MIN_CONTRAST, Foreground, find_foreground
from inkdigits.reader import preprocess

REFERENCE = preprocess(seven())


def test_ink_fills_20_pixels_and_its_centre_of_mass_is_in_the_middle():
    rows, columns = np.nonzero(REFERENCE > 25)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (20, 21)
    assert ndimage.center_of_mass(REFERENCE) == pytest.approx((14, 14), abs=0.5)
    assert REFERENCE.max() == 255


def test_canonical_ink_comes_out_as_itself(digits):
    for ink in digits[0][::10]:
        assert difference(preprocess(encoded(Image.fromarray(ink))), ink) < 0.6


@pytest.mark.mnist
def test_mnist_comes_out_as_itself_and_enlarged_close_to_itself(mnist_test):
    inks = mnist_test[0][::10]
    # A few in 10,000 do not fill 20 pixels or sit between two centres.
    assert np.mean([np.array_equal(preprocess(ink), ink) for ink in inks]) >= 0.995
    large = [
        Image.fromarray(ink).resize((280, 280), Image.Resampling.BICUBIC) for ink in inks[::10]
    ]
    found = [preprocess(encoded(picture)) for picture in large]
    # Resampling there and back with exact boxes costs 3.5.
    assert np.mean([*map(shifted_difference, found, inks[::10])]) < 6.5


@pytest.mark.parametrize("position", [(0, 0), (100, 0), (0, 400), (400, 400), (13, 277)])
def test_neither_the_place_in_the_picture_nor_faint_pencil_matters(position):
    page = Image.new("L", (600, 600), 255)
    page.paste(seven(), position)
    assert difference(preprocess(page), REFERENCE) < 1
    for contrast, most in ((40, 2), (13, 8)):
        faint = Image.eval(page, lambda value, by=contrast: 200 + value * by // 255)
        assert difference(preprocess(faint), REFERENCE) < most


def test_narrow_digit_keeps_its_width():
    one = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(one).rectangle([95, 20, 104, 179], fill=0)  # 10 wide, 160 high
    assert preprocess(one).astype(float).sum() / 255 == pytest.approx(20 * 10 * 20 / 160, rel=0.1)


def test_very_large_picture_of_a_small_digit_is_read():
    page = Image.new("L", (4000, 3000), 255)
    page.paste(seven(400, 40), (1800, 900))
    assert shifted_difference(preprocess(page), preprocess(seven(400, 40))) < 6


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70))), st.integers(0, 20))
@settings(max_examples=200, deadline=None)
def test_any_array_becomes_ink(array, blur):
    if blur > 10:
        array = np.asarray(Image.fromarray(array).filter(ImageFilter.GaussianBlur(blur - 10)))
    ink = preprocess(array)
    assert (ink.shape, ink.dtype) == ((28, 28), np.uint8)
    # Fainter ink than the limit counts as blank.
    if np.ptp(array) < MIN_CONTRAST:
        assert not ink.any()


@given(st.integers(0, 2**32), st.integers(1, 90), st.booleans())
@settings(max_examples=60, deadline=None)
def test_leaving_out_clean_background_changes_nothing(seed, size, dark):
    random = np.random.default_rng(seed)
    page = np.full((size + 40, size + 60), 255 if dark else 0, np.uint8)
    top, left = random.integers(1, 39), random.integers(1, 59)
    page[top : top + size, left : left + size] = random.integers(0, 256, (size, size))
    found = find_foreground(Luminance.of(page), lambda view: np.repeat(view, 2, axis=1))
    whole = np.zeros(found.whole, np.float32)
    height, width = found.values.shape
    whole[found.top : found.top + height, found.left : found.left + width] = found.values
    assert np.array_equal(normalise(found), normalise(Foreground.whole_picture(whole)))


def test_standardised_ink_has_the_mean_and_deviation_removed():
    batch = standardise(np.stack([np.full((28, 28), shade, np.uint8) for shade in (0, 255)]))
    assert (batch.shape, batch.dtype) == ((2, 1, 28, 28), np.float32)
    assert batch[:, 0, 0, 0] == pytest.approx([-0.1307 / 0.3081, (1 - 0.1307) / 0.3081])


def no_network(view):
    raise AssertionError("a clean picture needs no network")


def found(picture):
    return find_foreground(Luminance.of(np.asarray(picture)), no_network)


def test_field_shows_ink_as_1_with_background_around_it_and_where_it_is():
    field = field_of(found(seven()))
    assert field.ink.dtype == np.float32
    assert (field.ink.min(), field.ink.max()) == (0, 1)
    picture = 1 - np.asarray(seven(), dtype=np.float32) / 255
    height, width = field.ink.shape
    part = picture[field.top : field.top + height, field.left : field.left + width]
    assert np.abs(field.ink - np.minimum(part / 0.8, 1)).max() < 0.01
    assert part.sum() == picture.sum()


def test_a_field_of_no_ink_has_none():
    assert not field_of(found(np.full((50, 100), 240, np.uint8))).ink.any()


@pytest.mark.parametrize(("height", "several"), [(40, True), (4, False)])
def test_a_second_piece_could_be_a_digit_if_it_is_large_enough(height, several):
    values = np.zeros((100, 100), np.float32)
    values[10:90, 20:30] = values[10 : 10 + height, 60:68] = 200
    assert has_several(Foreground.whole_picture(values)) == several


@pytest.mark.parametrize("doubt", [{}, {"certainty": 0.8}, {"doubtful": 0.2}])
def test_only_ink_that_is_certain_and_whole_may_be_accepted(doubt):
    whole = Foreground.whole_picture(np.pad(np.ones((10, 4), np.float32), 3))
    assert is_certain(replace(whole, **doubt)) == (not doubt)


@pytest.mark.parametrize("turned", range(4))
def test_a_digit_is_cut_off_where_a_stroke_runs_into_one_edge(turned):
    whole = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(whole).ellipse([60, 0, 140, 180], outline=0, width=16)
    assert not is_cut_off(found(np.rot90(np.asarray(whole), turned)))
    cut = np.rot90(np.asarray(whole)[50:], turned)
    assert is_cut_off(found(cut))
    # A crop to a digit touches opposite edges.
    filling = 255 - np.rot90(np.asarray(whole, dtype=np.float32)[50:140], turned)
    assert not is_cut_off(Foreground.whole_picture(filling))
