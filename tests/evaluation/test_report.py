import io

import numpy as np
import pytest
from PIL import Image

import inkdigits
from inkdigits.data.labelled import Example, Labelled
from inkdigits.evaluation.readings import read_all
from inkdigits.evaluation.report import contact_sheet, score
from inkdigits.types import NO_DIGIT

BLANK = np.zeros((28, 28), np.uint8)


def report_of(*examples):
    return score(read_all(inkdigits.load(), Labelled(list(examples))))


@pytest.fixture(scope="module")
def report(digits):
    """Digits of two sources, one wrongly labelled, and two blank pictures."""
    inks, labels = digits
    examples = [Example(f"{n}", "ab"[n % 2], inks[n], int(labels[n])) for n in range(18)]
    examples[3] = Example("3", "b", inks[3], (int(labels[3]) + 1) % 10)
    blanks = [Example("blank", "a", BLANK, NO_DIGIT), Example("empty", "a", BLANK, 0)]
    return report_of(*examples, *blanks)


def test_scores_are_of_all_of_each_label_and_of_each_source(report):
    all_of_them = report.scores[0]
    assert (all_of_them.n, all_of_them.n_right) == (20, 18)
    assert all_of_them.accuracy.low < 18 / 20 < all_of_them.accuracy.high
    assert all_of_them.n_wrong == int(report.readings.accepted[3])
    assert all_of_them.wrong_at_most > all_of_them.n_wrong / all_of_them.n_accepted
    named = {one.name: one for one in report.scores}
    assert named["a"].n + named["b"].n == 20
    assert named["none"].n_right == named["none"].n == 1
    assert named["none"].wrong_of_accepted is None
    assert sum(one.n for one in report.scores if one.name.startswith("digit")) == 19
    confusion = report.confusion()
    assert confusion.sum() == 20
    assert confusion[10, 10] == confusion[0, 10] == 1
    assert np.trace(confusion) == 18
    assert [one["name"] for one in report.to_dict()["misread"]] == ["3", "empty"]
    assert "90.00 %" in report.table()


def test_blank_picture_labelled_0_is_wrong_in_every_figure(report):
    # The tie of its probabilities goes to 0.
    assert (report.digits.n, report.digits.n_correct) == (19, 17)


def test_sheet_has_a_captioned_row_for_each_eight_pictures():
    sheet = Image.open(io.BytesIO(contact_sheet(np.zeros((9, 28, 28), np.uint8), ["7 as 1"] * 9)))
    assert (sheet.width // 8, sheet.height // 2) == (96, 112)
    assert np.asarray(sheet)[-16:, :96].min() < 100


def test_page_escapes_names_and_shows_what_was_misread(digits):
    inks, labels = digits
    right = report_of(Example("<b>.png", "own", inks[0], int(labels[0])))
    assert right.sheet() is None
    assert "Nothing was misread" in right.html()
    wrong = Example("<b>.png", "own", inks[0], (int(labels[0]) + 1) % 10)
    page = report_of(wrong, Example("x", "<i>", inks[1], int(labels[1]))).html()
    assert "Misread: 1 of 2" in page
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
