import numpy as np
import pytest

from inkdigits.data.pen_strokes import CANVAS, STYLES, draw_digits, draw_lines, spline
from inkdigits.errors import DataError
from inkdigits.reader import preprocess


def test_every_digit_is_drawn_in_turn_in_black_on_white_and_a_seed_repeats_it():
    pictures, labels = draw_digits(30, np.random.default_rng(1))
    assert (pictures.shape, pictures.dtype) == ((30, CANVAS, CANVAS), np.uint8)
    np.testing.assert_array_equal(labels, np.arange(30) % 10)
    np.testing.assert_array_equal(pictures, draw_digits(30, np.random.default_rng(1))[0])
    assert len(np.unique(pictures, axis=0)) == 30
    assert (pictures.min(axis=(1, 2)) == 0).all()
    assert (np.median(pictures, axis=(1, 2)) == 255).all()
    assert all(preprocess(picture).any() for picture in pictures)
    with pytest.raises(DataError, match="at least 1"):
        draw_digits(0, np.random.default_rng(0))


def test_the_styles_of_several_countries_are_there():
    assert set(STYLES) == set(range(10))
    assert {"plain", "bar"} <= set(STYLES[7])
    assert {"bar", "flag and base"} <= set(STYLES[1])
    assert {"open", "closed"} <= set(STYLES[4])


def test_a_spline_goes_through_its_points_straight_or_not_and_a_line_is_as_thick_as_its_pen():
    points = np.array([[0.0, 0.0], [0.4, 0.9], [1.0, 0.2]])
    np.testing.assert_allclose(spline(points)[::12], points, atol=1e-12)
    line = spline(np.array([[0.0, 1.0], [2.0, 5.0]]))
    np.testing.assert_allclose(line[:, 1], 1 + 2 * line[:, 0], atol=1e-12)
    picture = draw_lines([np.array([[10.0, 20.0], [50.0, 20.0]])], (60, 40), 6.0)
    assert picture.shape == (40, 60)
    assert (255 - picture[:, 30].astype(float)).sum() / 255 == pytest.approx(6, abs=0.8)
