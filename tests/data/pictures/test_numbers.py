import numpy as np
import pytest

from inkdigits.data.pictures.numbers import SETTINGS, WrittenDigits, write_numbers, write_table


def rng():
    return np.random.default_rng(7)


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
            area = slice(top, top + height), slice(left, left + width)
            assert np.ptp(one.picture[area].astype(float)) > 30


def test_number_is_by_one_writer_where_writers_are_known(digits):
    inks, writers = digits[0][:40], np.repeat([1, 2], 20)
    given = WrittenDigits(inks, digits[1][:40].astype(np.int64), writers)
    for _ in range(10):
        assert len(set(writers[given.draw(5, rng())])) == 1


def test_table_has_a_digit_in_each_cell_that_is_not_empty(digits):
    given = WrittenDigits(digits[0], digits[1].astype(np.int64))
    picture, cells = write_table(given, 4, 5, rng())
    assert len(cells) == 20
    assert any(text == "" for _, text in cells)
    for (left, top, width, height), text in cells:
        inner = picture[top + 5 : top + height - 2, left + 5 : left + width - 2]
        assert (np.ptp(inner.astype(float)) > 60) == bool(text)
