import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import KINDS, Pair, centre_map, make_pair


@pytest.fixture(scope="module")
def sources(digits) -> Sources:
    return Sources(*digits, find_fonts("train"))


def rng(seed):
    return np.random.default_rng(seed)


def pairs(sources, kind, n=12, seed=1) -> list[Pair]:
    generator = np.random.default_rng(seed)
    return [make_pair(generator, sources, kind) for _ in range(n)]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_their_ink_have_one_size_and_the_same_seed_makes_the_same(sources, kind):
    first, second = pairs(sources, kind), pairs(sources, kind)
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.picture, other.picture)
        assert np.array_equal(one.ink, other.ink)
        assert one.picture.dtype == np.uint8
        assert one.picture.shape == one.ink.shape
        assert 0 <= one.ink.min() <= one.ink.max() <= 1
        assert 8 <= min(one.picture.shape) <= max(one.picture.shape) <= 1000


def test_only_empty_pictures_have_no_ink(sources):
    assert not any(pair.ink.any() or pair.centres for pair in pairs(sources, "empty"))
    for kind in KINDS.keys() - {"empty"}:
        assert all(pair.ink.max() > 0.2 for pair in pairs(sources, kind, 10))


def test_every_digit_has_a_centre_and_signs_have_none(sources):
    assert all(len(pair.centres) == 1 for pair in pairs(sources, "one"))
    assert all(2 <= len(pair.centres) <= 10 for pair in pairs(sources, "pair") if pair.centres[1:])
    assert not any(pair.centres for pair in pairs(sources, "sign"))
    for pair in pairs(sources, "several"):
        heights = centre_map(pair)
        for x, y, _ in pair.centres:
            if 0 <= y < heights.shape[0] and 0 <= x < heights.shape[1]:
                assert heights[int(y), int(x)] > 0.5


@pytest.mark.parametrize("look", ["canvas", "plain", "paper", "scene"])
def test_which_digit_it_is_and_what_is_missing_are_known_in_every_look(digits, look):
    sevens = digits[0][digits[1] == 7]
    given, generator = Sources(sevens, np.full(len(sevens), 7), styles=False), rng(3)
    for _ in range(5):
        pair = make_pair(generator, given, "one", look)
        assert (pair.digits, pair.cut) == ((7,), 0)
    cuts = [make_pair(generator, given, "cut", look).cut for _ in range(10)]
    assert 0.1 < max(cuts) < 0.8
    sign = np.ones((8, 8), np.float32)
    assert make_pair(generator, given, "sign", look, sign).digits == ()
