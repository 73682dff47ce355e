import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.pictures import seven

from inkdigits.ink.field import field_of, has_several, is_cut_off
from inkdigits.ink.plain import Foreground, find_foreground


def no_network(view):
    raise AssertionError("a clean picture needs no network")


def found(picture):
    return find_foreground(np.asarray(picture), no_network)


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


def test_left_out_ink_counts():
    whole = Foreground.whole_picture(np.ones((10, 4), np.float32))
    assert not has_several(whole)
    assert has_several(Foreground(whole.values, 0, 0, whole.whole, specks=0.1))


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
