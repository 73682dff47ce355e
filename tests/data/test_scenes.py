import numpy as np
import pytest

from inkdigits.data.scenes import (
    SCENES,
    SETTINGS,
    WrittenDigits,
    photograph_scenes,
    write_numbers,
    write_table,
)
from inkdigits.errors import DataError
from inkdigits.reader import preprocess


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


@pytest.mark.parametrize("setting", SETTINGS)
def test_numbers_are_reproducible_and_their_boxes_hold_the_digits(digits, setting):
    given = WrittenDigits(digits[0], digits[1].astype(np.int64))
    first, second = (write_numbers(given, 6, rng(), setting) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert (one.text, one.boxes) == (other.text, other.boxes)
        assert np.array_equal(one.picture, other.picture)
        assert 3 <= len(one.text) == len(one.boxes) <= 8
        lefts = [left for left, *_ in one.boxes]
        assert lefts == sorted(lefts)
        for left, top, width, height in one.boxes:
            part = one.picture[top : top + height, left : left + width]
            assert np.ptp(part.astype(float)) > 30


def test_number_is_by_one_writer_where_writers_are_known(digits):
    inks, writers = digits[0][:40], np.repeat([1, 2], 20)
    given = WrittenDigits(inks, digits[1][:40].astype(np.int64), writers)
    for _ in range(10):
        assert len(set(writers[given.draw(5, rng())])) == 1
    with pytest.raises(DataError, match="no digits"):
        write_numbers(WrittenDigits(inks[:0], writers[:0]), 1, rng(), "spaced")


def test_table_has_a_digit_in_each_cell_that_is_not_empty(digits):
    given = WrittenDigits(digits[0], digits[1].astype(np.int64))
    picture, cells = write_table(given, 4, 5, rng())
    assert len(cells) == 20
    assert any(text == "" for _, text in cells)
    for (left, top, width, height), text in cells:
        inner = picture[top + 5 : top + height - 2, left + 5 : left + width - 2]
        assert (np.ptp(inner.astype(float)) > 60) == bool(text)
