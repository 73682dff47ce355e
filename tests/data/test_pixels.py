import numpy as np

from inkdigits.data.pixels import blend_ink, enlarge


def test_enlarging_keeps_the_mean():
    coarse = np.random.default_rng(0).random((3, 4))
    fine = enlarge(coarse, (60, 80))
    assert fine.shape == (60, 80)
    assert abs(fine.mean() - coarse.mean()) < 0.02


def test_ink_is_now_darker_and_now_lighter_than_the_background():
    rng = np.random.default_rng(0)
    pictures = [blend_ink(np.eye(30), rng).astype(float) for _ in range(9)]
    assert {np.sign(picture[3, 3] - picture[3, 9]) for picture in pictures} == {-1, 1}
