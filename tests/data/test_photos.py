import numpy as np
import pytest

from inkdigits.data.photos import CONDITIONS, photograph
from inkdigits.errors import ConfigError, DataError


def rng():
    return np.random.default_rng(7)


def test_photographs_have_the_sizes_of_pictures_vary_and_repeat_with_the_seed(digits):
    pictures, again = (photograph(digits[0][:60], rng()) for _ in range(2))
    assert all(p.dtype == np.uint8 and p.ndim == 2 for p in pictures)
    assert all(24 <= max(p.shape) <= 400 for p in pictures)
    assert len({p.shape for p in pictures}) > 50
    assert all(np.array_equal(a, b) for a, b in zip(pictures, again, strict=True))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_each_condition_changes_the_picture(digits, condition):
    plain = photograph(digits[0][:8], rng(), conditions=())
    changed = photograph(digits[0][:8], rng(), conditions=(condition,))
    assert not all(np.array_equal(a, b) for a, b in zip(plain, changed, strict=True))


def test_the_digit_is_darker_than_plain_paper_and_lighter_with_chalk(digits):
    for sign, least, conditions in ((-1, 80, ()), (1, 60, ("chalk",))):
        for picture in photograph(digits[0][:20], rng(), conditions=conditions):
            contrast = sign * (picture - np.median(picture))
            assert contrast.max() > least
    blank = np.zeros((5, 28, 28), np.uint8)
    assert all(np.ptp(picture) == 0 for picture in photograph(blank, rng(), conditions=()))
    with pytest.raises(ConfigError, match="fog"):
        photograph(blank, rng(), conditions=("fog",))
    with pytest.raises(DataError, match="28"):
        photograph(blank[:, :20, :20], rng())
