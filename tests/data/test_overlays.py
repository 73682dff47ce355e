import numpy as np
import pytest

from inkdigits.data.overlays import dotted_lines, fog, zigzags


def test_fog_is_smooth_differs_and_spans_its_range():
    foggy = fog(33, 3.0, np.random.default_rng(0))
    assert len(np.unique(foggy, axis=0)) == 33
    assert 0 <= foggy.min() < foggy.max() <= 1
    assert np.abs(np.diff(foggy, axis=2)).mean() < 0.02


def test_dotted_lines_have_two_dots_and_two_gaps_by_turns_and_zigzags_swing_to_both_sides():
    drawn = np.flatnonzero(dotted_lines().max(axis=(0, 1)))
    assert (drawn % 4 >= 2).all()
    assert drawn[:4].tolist() == [2, 3, 6, 7]
    level = zigzags()[5::10][14]  # about row 14, rising by nothing
    centre = (level * np.arange(28)[:, None]).sum(axis=0) / np.maximum(level.sum(axis=0), 1e-9)
    assert (centre[2:25].min(), centre[2:25].max()) == pytest.approx((12, 16), abs=0.01)
