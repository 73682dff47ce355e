import numpy as np

from inkdigits.data.pixels import blend_ink, enlarge


def test_enlarging_keeps_the_mean():
    coarse = np.random.default_rng(0).random((3, 4))
    fine = enlarge(coarse, (60, 80))
    assert fine.shape == (60, 80)
    assert abs(fine.mean() - coarse.mean()) < 0.02


def test_ink_is_now_darker_and_now_lighter_than_the_background():
    rng, coverage = np.random.default_rng(0), np.eye(30)
    signs = {
        np.sign(float(p[3, 3]) - p[3, 9]) for p in (blend_ink(coverage, rng) for _ in range(9))
    }
    assert signs == {-1, 1}
