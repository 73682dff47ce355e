import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.pictures.foreground import Hands
from inkdigits.data.pictures.pairs import KINDS, Pair, centre_map, make_pair


@pytest.fixture(scope="module")
def hands(digits) -> Hands:
    return Hands(digits[0], find_fonts("train"))


def pairs(hands, kind, n=12, seed=1) -> list[Pair]:
    generator = np.random.default_rng(seed)
    return [make_pair(generator, hands, kind) for _ in range(n)]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_their_ink_have_one_size_and_the_same_seed_makes_the_same(hands, kind):
    first, second = pairs(hands, kind), pairs(hands, kind)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.picture, other.picture)
        assert np.array_equal(one.ink, other.ink)
        assert one.picture.dtype == np.uint8
        assert one.picture.shape == one.ink.shape
        assert 0 <= one.ink.min() <= one.ink.max() <= 1
        assert 8 <= min(one.picture.shape) <= max(one.picture.shape) <= 1000


def test_only_empty_pictures_have_no_ink(hands):
    assert not any(pair.ink.any() or pair.centres for pair in pairs(hands, "empty"))
    for kind in KINDS.keys() - {"empty"}:
        assert all(pair.ink.max() > 0.2 for pair in pairs(hands, kind, 10))


def test_every_digit_has_a_centre_and_signs_have_none(hands):
    assert all(len(pair.centres) == 1 for pair in pairs(hands, "one"))
    assert all(2 <= len(pair.centres) <= 10 for pair in pairs(hands, "pair") if pair.centres[1:])
    assert not any(pair.centres for pair in pairs(hands, "sign"))
    for pair in pairs(hands, "several"):
        heights = centre_map(pair)
        for x, y, _ in pair.centres:
            if 0 <= y < heights.shape[0] and 0 <= x < heights.shape[1]:
                assert heights[int(y), int(x)] > 0.5
