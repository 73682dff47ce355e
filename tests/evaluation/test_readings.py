import numpy as np
import pytest

import inkdigits
from inkdigits.data.labelled import Example, Labelled
from inkdigits.errors import DataError, UnreadableImageError
from inkdigits.evaluation.readings import read_all, score
from inkdigits.types import NO_DIGIT

BLANK = np.zeros((28, 28), np.uint8)


@pytest.fixture(scope="module")
def readings(digits):
    """Digits of two sources, one wrongly labelled, a damaged picture and two blank ones."""
    inks, labels = digits
    examples = [
        Example(f"{n}", "ab"[n % 2], ink, int(label))
        for n, (ink, label) in enumerate(zip(inks[:18], labels, strict=False))
    ]
    examples[3] = Example("3", "b", inks[3], (int(labels[3]) + 1) % 10)
    examples.insert(2, Example("bad", "a", UnreadableImageError("it is truncated"), 7))
    examples += [Example("blank", "a", BLANK, NO_DIGIT), Example("empty", "a", BLANK, 0)]
    return read_all(inkdigits.load(), Labelled(examples, [("list", "3 rows have no feedback")]))


def test_readings_belong_to_their_pictures_and_the_damaged_are_named(readings):
    assert len(readings.labels) == len(readings.examples) == 20
    assert [name for name, _ in readings.left_out] == ["list", "bad"]
    assert readings.examples[2].name == "2"
    assert readings.right.tolist() == [n not in (3, 19) for n in range(20)]
    assert readings.digits[18:].tolist() == [NO_DIGIT, NO_DIGIT]
    assert readings.rejected[18:].all()


def test_scores_are_of_all_of_each_label_and_of_each_source(readings):
    report = score(readings)
    all_of_them = report.scores[0]
    assert (all_of_them.n, all_of_them.n_right) == (20, 18)
    assert all_of_them.accuracy.low < 18 / 20 < all_of_them.accuracy.high
    assert all_of_them.n_wrong == int(readings.accepted[3])
    assert all_of_them.wrong_at_most > all_of_them.n_wrong / all_of_them.n_accepted
    named = {one.name: one for one in report.scores}
    assert named["a"].n + named["b"].n == 20
    assert named["none"].n_right == named["none"].n == 1
    assert named["none"].wrong_of_accepted is None
    assert sum(one.n for one in report.scores if one.name.startswith("digit")) == 19
    assert report.digits.n == 19
    confusion = report.confusion()
    assert confusion.sum() == 20
    assert confusion[10, 10] == confusion[0, 10] == 1
    assert np.trace(confusion) == 18
    content = report.to_dict()
    assert [one["name"] for one in content["misread"]] == ["3", "empty"]
    assert "90.00 %" in report.table()


def test_nothing_that_can_be_read_is_an_error():
    with pytest.raises(DataError, match=r"a\.png: it is truncated"):
        read_all(inkdigits.load(), Labelled([], [("a.png", "it is truncated")]))
