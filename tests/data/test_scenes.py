import numpy as np
import pytest

from inkdigits.data.scenes import SCENES, photograph_scenes
from inkdigits.errors import DataError
from inkdigits.ink.normalize import preprocess


def rng():
    return np.random.default_rng(7)


def test_scenes_have_the_sizes_of_pictures_and_the_same_seed_makes_the_same(digits):
    first, second = (photograph_scenes(digits[0][:30], rng()) for _ in range(2))
    assert len(first) == 30
    assert all(p.dtype == np.uint8 and p.ndim == 2 for p in first)
    assert all(400 <= max(p.shape) <= 700 for p in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_empty_page_is_blank_and_digits_of_another_shape_are_an_error():
    blank = np.zeros((10, 28, 28), np.uint8)
    assert not any(preprocess(p).any() for p in photograph_scenes(blank, rng(), "page"))
    with pytest.raises(DataError, match="28"):
        photograph_scenes(blank[:, :20, :20], rng())


@pytest.mark.parametrize("scene", SCENES)
def test_a_digit_in_a_scene_is_found_where_it_would_be_on_paper(digits, scene):
    inks = digits[0][:40]
    likenesses = []
    for ink, picture in zip(inks, photograph_scenes(inks, rng(), scene), strict=True):
        expected, found = (preprocess(p).ravel().astype(float) for p in (ink, picture))
        # The cosine between both; up to 10 degrees of turning are left.
        length = np.linalg.norm(expected) * max(1.0, np.linalg.norm(found))
        likenesses.append(expected @ found / length)
    assert np.mean(np.array(likenesses) > 0.7) >= 0.9
