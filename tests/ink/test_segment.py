import numpy as np
import pytest

from inkdigits.ink.segment import (
    STEP,
    find_ink,
    near_window,
    standardise_view,
    view,
    whole_window,
)


def thresholding(batch):
    """Stand in for the network: what is much darker than the mean is ink."""
    ink = np.clip(-6 * (batch + 1), -12, 12)
    return np.concatenate([ink, ink], axis=1)


@pytest.mark.parametrize("shape", [(28, 28), (480, 640), (1024, 90), (33, 999)])
def test_the_first_view_shows_the_whole_picture_undistorted(shape):
    (left, top, right, bottom), (rows, columns) = whole_window(shape)
    assert rows % STEP == columns % STEP == 0
    assert left <= 0
    assert top <= 0
    assert right >= shape[1]
    assert bottom >= shape[0]
    assert (right - left) / columns == pytest.approx((bottom - top) / rows)


@pytest.mark.parametrize("box", [(10, 10, 14, 50), (0, 0, 300, 40), (5, 5, 6, 6), (0, 0, 9000, 40)])
def test_the_second_view_shows_the_ink_with_a_margin_undistorted(box):
    (left, top, right, bottom), (rows, columns) = near_window(box)
    assert rows % STEP == columns % STEP == 0
    assert left < box[0] < box[2] < right
    assert top < box[1] < box[3] < bottom
    assert (right - left) / columns == pytest.approx((bottom - top) / rows)


def test_a_view_beyond_the_picture_repeats_its_edge_or_is_zero():
    picture = np.full((20, 20), 9, np.uint8)
    window = (-10.0, -10.0, 30.0, 30.0)
    assert (view(picture, window, (64, 64)) == 9).all()
    outside = view(picture.astype(np.float32), window, (64, 64), repeat=False)
    assert outside[0, 0] == 0
    assert outside[32, 32] == 9


def test_views_are_standardised_and_flat_ones_are_not_blown_up():
    noisy = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    values = standardise_view(noisy)
    assert values.shape == (1, 1, 64, 64)
    assert abs(float(values.mean())) < 1e-3
    assert float(values.std()) == pytest.approx(1, abs=1e-3)
    flat = np.full((64, 64), 100, np.uint8)
    flat[0, 0] = 101
    assert np.abs(standardise_view(flat)).max() < 0.3


def test_small_ink_is_looked_at_again_from_near():
    picture = np.full((600, 800), 230, np.uint8)
    picture[100:140, 200:206] = 10
    found = find_ink(picture, thresholding)
    assert found is not None
    left, top, right, _ = found.window
    assert right - left < 100
    rows, columns = found.coverage.nonzero()
    scale = (right - left) / found.coverage.shape[1]
    assert top + scale * rows.min() == pytest.approx(100, abs=3)
    assert left + scale * (columns.max() + 1) == pytest.approx(206, abs=3)


def test_specks_are_left_out_and_counted_but_a_second_digit_stays():
    picture = np.full((128, 128), 230, np.uint8)
    picture[30:90, 20:32] = 10
    picture[40:70, 90:98] = 10
    found = find_ink(picture, thresholding)
    assert found is not None
    assert found.doubtful == 0
    picture[5:8, 5:8] = 10
    speckled = find_ink(picture, thresholding)
    assert speckled is not None
    assert 0 < speckled.doubtful < 0.02
    assert np.array_equal(speckled.coverage > 0.5, found.coverage > 0.5)


def test_there_is_no_ink_where_the_network_sees_none():
    assert find_ink(np.full((200, 300), 128, np.uint8), thresholding) is None
