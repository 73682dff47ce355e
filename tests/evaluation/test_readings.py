import numpy as np
import pytest

import inkdigits
from inkdigits.data.labelled import Example, Labelled
from inkdigits.errors import DataError, UnreadableImageError
from inkdigits.evaluation.readings import read_all
from inkdigits.types import NO_DIGIT


def test_readings_belong_to_their_pictures_and_the_damaged_are_named(digits):
    inks, labels = digits
    examples = [Example(f"{n}", "own", inks[n], int(labels[n])) for n in range(9)]
    examples.insert(2, Example("bad", "own", UnreadableImageError("it is truncated"), 7))
    examples += [Example("", "own", np.zeros((28, 28), np.uint8), of) for of in (NO_DIGIT, 0)]
    left_out = [("list", "3 rows have no feedback")]
    readings = read_all(inkdigits.load(), Labelled(examples, left_out))
    assert len(readings.labels) == len(readings.examples) == 11
    assert [name for name, _ in readings.left_out] == ["list", "bad"]
    assert readings.examples[2].name == "2"
    assert readings.right.tolist() == [True] * 10 + [False]
    assert readings.digits[9:].tolist() == [NO_DIGIT, NO_DIGIT]
    assert readings.rejected[9:].all()


def test_nothing_that_can_be_read_is_an_error():
    with pytest.raises(DataError, match=r"a\.png: it is truncated"):
        read_all(inkdigits.load(), Labelled([], [("a.png", "it is truncated")]))
