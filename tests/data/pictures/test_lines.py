import numpy as np
import pytest

from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.lines import Writers, write_line
from inkdigits.data.pictures.numbers import WrittenDigits
from inkdigits.decision.ctc import OTHER, SYMBOLS
from inkdigits.decision.strip import STRIP_HEIGHT
from inkdigits.model.artifact import SEGMENTER, read_network
from inkdigits.model.backends import onnx_function

FIND_INK = onnx_function(read_network(SEGMENTER), threads=1)


@pytest.fixture(scope="module")
def writers(digits):
    inks, labels = digits
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inkdigits.data.pictures.lines._POOL", 80)
        given = WrittenDigits(inks, labels.astype(np.int64))
        return Writers.of(given, Sources(inks, labels), np.random.default_rng(0))


def test_lines_are_strips_of_one_height_with_their_digits(writers):
    rng = np.random.default_rng(1)
    made = [line for _ in range(40) if (line := write_line(writers, FIND_INK, rng)) is not None]
    assert len(made) > 35
    for strip, text in made:
        assert (strip.dtype, len(strip)) == (np.uint8, STRIP_HEIGHT)
        assert 1 <= len(text) <= 10
        assert set(text) <= set(SYMBOLS)
        # Each symbol takes some columns.
        assert strip.shape[1] > 5 * len(text)
    again = write_line(writers, FIND_INK, np.random.default_rng(1))
    assert np.array_equal(again[0], made[0][0])


def test_what_is_no_digit_is_a_symbol_of_its_own(writers):
    others = Writers({"others": writers.digits["others"]})
    rng = np.random.default_rng(2)
    texts = [line[1] for _ in range(5) if (line := write_line(others, FIND_INK, rng)) is not None]
    assert set("".join(texts)) == {SYMBOLS[OTHER]}
