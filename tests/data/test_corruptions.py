import numpy as np
import pytest
from scipy import ndimage

from inkdigits.data.corruptions import (
    FAMILIES,
    MNIST_C_SEVERITY,
    SEVERITIES,
    canny,
    corrupt,
    corrupt_mildly,
    lower_resolution,
)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def inks(digits):
    return digits[0][:40]


def cross(n=1):
    """A plus sign of full ink, which every mirror image and quarter turn leaves alone."""
    picture = np.zeros((n, 28, 28), np.uint8)
    picture[:, 12:16, 5:23] = 255
    picture[:, 5:23, 12:16] = 255
    return picture


def test_mild_corruption_takes_each_family_alike_in_its_lowest_severity():
    assert len(FAMILIES) == 15
    assert set(MNIST_C_SEVERITY.values()) <= set(SEVERITIES)
    crosses = cross(150)
    changed = corrupt_mildly(crosses, rng(1))
    np.testing.assert_array_equal(changed, corrupt_mildly(crosses, rng(1)))
    np.testing.assert_array_equal(crosses, cross(150))
    # Of those without chance each is there ten times, and nothing of a higher severity.
    for family in ("brightness", "stripe", "scale", "canny_edges"):
        alike = [(changed == corrupt(cross(), family, s, rng())).all(axis=(1, 2)) for s in (1, 5)]
        assert [int(found.sum()) for found in alike] == [10, 0], family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_corruption_is_reproducible_and_changes_more_in_the_worst_severity(family, inks):
    before = inks.copy()
    amounts = []
    for severity in SEVERITIES:
        changed = corrupt(inks, family, severity, rng())
        assert (changed.shape, changed.dtype) == (inks.shape, np.uint8)
        np.testing.assert_array_equal(changed, corrupt(inks, family, severity, rng()))
        share = (changed != inks).any(axis=(1, 2)).mean()
        # Mud can miss a picture; nothing else does.
        assert share >= 0.8 if family == "spatter" else share == 1
        amounts.append(np.abs(changed.astype(int) - inks).mean())
    assert amounts[-1] > amounts[0] > 0
    np.testing.assert_array_equal(inks, before)
    assert corrupt(inks[:0], family, 3, rng()).shape == (0, 28, 28)


def test_shot_noise_keeps_the_mean_and_impulse_noise_sets_half_of_its_share_to_either_end():
    grey = np.full((200, 28, 28), 100, np.uint8)
    noisy = corrupt(grey, "impulse_noise", 4, rng())
    assert [(noisy == end).mean() for end in (0, 255)] == pytest.approx([0.085] * 2, abs=0.005)
    grey[:, :, :10] = 0
    noisy = corrupt(grey, "shot_noise", 1, rng())
    assert not noisy[:, :, :10].any()
    assert noisy[:, :, 10:].mean() == pytest.approx(100, abs=1)
    # Poisson: the variance of k / c is the mean over c, here c = 60 photons for 255.
    assert noisy[:, :, 10:].var() == pytest.approx(255 * 100 / 60, rel=0.05)


def test_glass_blur_moves_ink_and_keeps_its_amount():
    for severity in (1, 3, 5):
        changed = corrupt(cross(50), "glass_blur", severity, rng())
        assert changed.mean() == pytest.approx(cross().mean(), rel=0.03)
        assert len(np.unique(changed, axis=0)) == 50


def test_motion_blur_smears_sideways_and_on_average_neither_up_nor_down():
    point = np.zeros((100, 28, 28), np.uint8)
    point[:, 12:16, 12:16] = 255
    mean = corrupt(point, "motion_blur", 1, rng()).mean(axis=0)
    assert mean.sum() == pytest.approx(255 * 16, rel=0.02)
    share, grid = mean / mean.sum(), np.arange(28) - 13.5
    # A half Gaussian of deviation 3 has its mean at 2.4, and cos averages 0.9 up to 45 degrees.
    assert abs(share.sum(axis=0) @ grid) == pytest.approx(1.9, abs=0.4)
    assert abs(share.sum(axis=1) @ grid) < 0.3


@pytest.mark.parametrize(
    ("family", "severity", "moved"),
    [
        # Where a dot 8 columns right of the centre and 4 rows below it goes, either way.
        ("rotate", 2, lambda sin, cos: (8 * cos + 4 * sin, 4 * cos - 8 * sin)),
        ("shear", 2, lambda sin, cos: (8 + 4 * sin / cos, 4 / cos)),
        ("scale", 3, lambda sin, cos: (8 * 0.7, 4 * 0.7)),
    ],
)
def test_affine_corruptions_move_a_dot_to_where_geometry_says(family, severity, moved):
    dot = np.zeros((30, 28, 28), np.uint8)
    dot[:, 17:19, 21:23] = 255  # around row 17.5 and column 21.5; the centre is at 13.5
    centres = map(ndimage.center_of_mass, corrupt(dot, family, severity, rng()))
    found = np.unique([np.round(np.array(centre)[::-1] - 13.5, 1) for centre in centres], axis=0)
    expected = [np.array(moved(sign * np.sin(0.4), np.cos(0.4))) for sign in (1, -1)]
    assert len(found) == (1 if family == "scale" else 2)
    for position in found:
        assert min(np.abs(position - place).max() for place in expected) < 0.15


def test_brightness_fog_and_spatter_lighten_and_cover_as_they_say():
    changed = corrupt(cross(1203), "brightness", 5, rng())  # more than one batch of pictures
    assert (changed[:, 0, 0] == 128).all()
    assert (changed[:, 13, 13] == 255).all()
    foggy = corrupt(cross(9), "fog", 5, rng()).astype(int)
    inside, outside = foggy[:, 12:16, 5:12].mean(), foggy[:, 8:11, 5:12].mean()
    assert inside - outside == pytest.approx(255 / 4, rel=0.3)  # a quarter of the contrast
    muddy = corrupt(np.full((100, 28, 28), 255, np.uint8), "spatter", 4, rng())
    assert 0.02 < (muddy < 150).mean() < 0.5
    assert muddy.min() == 63


def test_translation_goes_to_all_four_corners_and_stripes_invert_seven_columns_at_each_side(inks):
    corners = [np.roll(cross()[0], (y, x), axis=(0, 1)) for y in (-3, 3) for x in (-3, 3)]
    changed = corrupt(cross(40), "translate", 3, rng())
    assert {picture.tobytes() for picture in changed} == {corner.tobytes() for corner in corners}
    expected = np.where(np.abs(np.arange(28) - 13.5) > 7, 255 - inks, inks)
    changed = corrupt(inks, "stripe", MNIST_C_SEVERITY["stripe"], rng())
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("family", ["dotted_line", "zigzag"])
def test_lines_only_add_ink_and_reach_across(family, inks):
    assert (corrupt(inks, family, 3, rng()) >= inks).all()
    drawn = corrupt(np.zeros_like(inks), family, 3, rng())
    columns = np.flatnonzero(drawn.max(axis=(0, 1)))
    assert columns.min() <= 2
    assert columns.max() >= 24


def test_canny_finds_a_closed_outline_and_drops_weak_edges_that_touch_no_strong_ones():
    square = np.pad(np.ones((1, 12, 12), np.float32), ((0, 0), (8, 8), (8, 8)))
    edges = canny(square, 1.0)[0]
    # Closed: outside and inside do not meet.
    regions, count = ndimage.label(~edges)
    assert count == 2
    assert regions[0, 0] != regions[14, 14]
    # One pixel wide away from the corners, on either side of the step.
    assert 1 <= edges[14, :14].sum() <= 2
    assert edges[14].sum() <= 4
    # A step from background to grey, weak at the bottom; only the first grows strong upwards.
    picture = np.zeros((2, 28, 28), np.float32)
    picture[0, :, 14:] = np.linspace(0.4, 0.06, 28)[:, None]
    picture[1, :, 14:] = 0.06
    edges = canny(picture, 1.0)
    assert edges[0, 24, 12:16].any()
    assert not edges[1].any()


def test_lower_resolution_still_shows_the_digit(digits):
    pictures = lower_resolution(digits[0][:60], np.random.default_rng(0))
    assert len(pictures) == 60
    assert min(p.shape[0] for p in pictures) < 20 < max(p.shape[0] for p in pictures)
    for picture in pictures:
        assert (picture.dtype, picture.ndim) == (np.uint8, 2)
        assert np.ptp(picture) > 100  # ink and paper are both there, whichever is the darker
