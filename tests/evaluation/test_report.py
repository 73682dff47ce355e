import io

import numpy as np
from PIL import Image

import inkdigits
from inkdigits.data.labelled import Example, Labelled
from inkdigits.evaluation.readings import read_all, score
from inkdigits.evaluation.report import contact_sheet, html_report, misread_sheet


def report_of(*examples):
    return score(read_all(inkdigits.load(), Labelled(list(examples))))


def test_sheet_has_a_captioned_row_for_each_eight_pictures():
    sheet = Image.open(io.BytesIO(contact_sheet(np.zeros((9, 28, 28), np.uint8), ["7 as 1"] * 9)))
    assert (sheet.width // 8, sheet.height // 2) == (96, 112)
    assert np.asarray(sheet)[-16:, :96].min() < 100


def test_page_escapes_names_and_shows_what_was_misread(digits):
    inks, labels = digits
    example = Example("<b>.png", "own", inks[0], int(labels[0]))
    right = report_of(example)
    assert misread_sheet(right) is None
    assert "Nothing was misread" in html_report(right)
    wrong = Example("<b>.png", "own", inks[0], (int(labels[0]) + 1) % 10)
    page = html_report(report_of(wrong, Example("x", "<i>", inks[1], int(labels[1]))))
    assert "Misread: 1 of 2" in page
    assert "&lt;i&gt;" in page
    assert "<i>" not in page
