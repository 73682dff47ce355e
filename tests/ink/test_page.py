import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.ink.nonuniform import lift_from_sheet, lift_ink
from inkdigits.ink.page import find_sheet

SHEET = [(60, 50), (330, 30), (350, 400), (30, 380)]


def picture(draw_on=None, sheet=SHEET, table: int = 70, paper: int = 220) -> np.ndarray:
    """(420, 400) float32: a sheet on a table, with the camera's noise."""
    image = Image.new("L", (400, 420), table)
    draw = ImageDraw.Draw(image)
    if sheet:
        draw.polygon(sheet, fill=paper)
    if draw_on:
        draw_on(draw)
    noise = np.random.default_rng(1).normal(0, 2, (420, 400))
    return (np.asarray(image) + noise).astype(np.float32)


def one(draw) -> None:
    draw.line([(190, 120), (170, 280)], fill=40, width=14)


def test_beside_the_sheet_its_shade_goes_on():
    sheet, beside = find_sheet(picture(one))
    assert beside is None
    height, width = sheet.picture.shape
    assert height == pytest.approx(370, abs=14)
    assert width == pytest.approx(320, abs=14)
    assert sheet.sign == -1
    corners = sheet.picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.abs(corners - 220).max() < 12
    assert (sheet.picture < 100).sum() == pytest.approx((picture(one) < 55).sum(), rel=0.1)


def test_ink_on_the_sheet_is_lifted_and_the_table_is_not():
    ink = lift_from_sheet(picture(one))
    assert ink.shape[0] == pytest.approx(160, abs=30)
    assert ink.shape[1] < 70
    assert ink.max() == pytest.approx(180, abs=15)


@pytest.mark.parametrize(
    ("draw_on", "sheet"),
    [
        (None, None),  # a table alone
        (one, None),  # paper that fills the picture
        (lambda d: d.ellipse((90, 60, 310, 380), fill=220), None),  # a disc
        (lambda d: d.ellipse((90, 60, 310, 380), outline=220, width=50), None),  # a nought
        (lambda d: d.rectangle((90, 60, 310, 380), outline=220, width=40), None),
    ],
)
def test_other_shapes_are_not_sheets(draw_on, sheet):
    assert find_sheet(picture(draw_on, sheet)) is None


def test_light_that_fades_is_not_the_edge_of_a_sheet():
    grey = np.broadcast_to(np.linspace(60, 240, 400, dtype=np.float32), (420, 400))
    assert find_sheet(grey) is None


def test_what_leaves_the_sheet_is_not_on_it():
    assert (
        lift_from_sheet(picture(lambda d: d.line([(20, 200), (200, 220)], fill=30, width=9)))
        is None
    )


def test_a_digit_in_the_shadow_beside_one_in_the_light_is_not_forgotten():
    def two(draw) -> None:
        draw.line([(100, 150), (90, 260)], fill=40, width=12)
        draw.line([(300, 150), (290, 260)], fill=25, width=12)

    lit = [(0, 0), (200, 0), (200, 420), (0, 420)]
    grey = picture(two, lit, table=140)
    sheet, beside = find_sheet(grey)
    assert beside is not None
    assert sheet.picture.shape[1] == pytest.approx(200, abs=10)
    assert lift_from_sheet(grey) is None
    assert lift_ink(grey).shape[1] > 180


def test_ink_is_dark_on_paper_that_a_lamp_makes_brightest_in_its_middle():
    y, x = np.mgrid[-1:1:420j, -1:1:400j]
    light = 1 - 0.35 * (x * x + y * y)
    page = picture(one, None, table=230) * light
    assert lift_ink(page.astype(np.float32)).shape[1] < 70


def test_a_tiny_digit_is_found_on_a_page_but_not_a_faint_one():
    def tiny(shade):
        return lambda d: d.line([(300, 100), (294, 130)], fill=shade, width=6)

    assert lift_ink(picture(tiny(60), None, table=220)) is not None
    assert lift_ink(picture(tiny(195), None, table=220)) is None
