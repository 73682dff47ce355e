import numpy as np

from inkdigits.data.pen_strokes import STYLES, spline


def test_the_styles_of_several_countries_are_there():
    assert set(STYLES) == set(range(10))
    assert {"plain", "bar"} <= set(STYLES[7])
    assert {"bar", "flag and base"} <= set(STYLES[1])
    assert {"open", "closed"} <= set(STYLES[4])


def test_a_spline_goes_through_its_points_straight_or_not():
    points = np.array([[0.0, 0.0], [0.4, 0.9], [1.0, 0.2]])
    np.testing.assert_allclose(spline(points)[::12], points, atol=1e-12)
    line = spline(np.array([[0.0, 1.0], [2.0, 5.0]]))
    np.testing.assert_allclose(line[:, 1], 1 + 2 * line[:, 0], atol=1e-12)
