import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.ink.page import find_page

PAGE = [(60, 50), (330, 30), (350, 400), (30, 380)]


def picture(draw_on=None, page=PAGE, table: int = 70) -> np.ndarray:
    """(420, 400) float32: a page of shade 220 on a table, with the camera's noise."""
    image = Image.new("L", (400, 420), table)
    draw = ImageDraw.Draw(image)
    if page:
        draw.polygon(page, fill=220)
    if draw_on:
        draw_on(draw)
    return (np.asarray(image) + np.random.default_rng(1).normal(0, 2, (420, 400))).astype("f4")


def one(draw) -> None:
    draw.line([(190, 120), (170, 280)], fill=40, width=14)


def test_beside_the_page_its_shade_continues():
    page, beside = find_page(picture(one))
    assert beside is None
    height, width = page.picture.shape
    assert height == pytest.approx(370, abs=14)
    assert width == pytest.approx(320, abs=14)
    assert page.sign == -1
    corners = page.picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.abs(corners - 220).max() < 12
    assert (page.picture < 100).sum() == pytest.approx((picture(one) < 55).sum(), rel=0.1)


def test_a_shadowed_part_of_the_page_is_returned_too():
    page, beside = find_page(picture(one, [(0, 0), (200, 0), (200, 420), (0, 420)], table=140))
    assert beside is not None
    assert page.picture.shape[1] == pytest.approx(200, abs=10)


@pytest.mark.parametrize(
    "draw_on",
    [
        None,  # a table alone
        one,  # a page that fills the picture
        lambda d: d.ellipse((90, 60, 310, 380), fill=220),  # a disc
        lambda d: d.ellipse((90, 60, 310, 380), outline=220, width=50),  # a zero
        lambda d: d.rectangle((90, 60, 310, 380), outline=220, width=40),
    ],
)
def test_other_shapes_are_no_pages(draw_on):
    assert find_page(picture(draw_on, page=None)) is None


def test_light_that_fades_is_not_the_edge_of_a_page():
    grey = np.broadcast_to(np.linspace(60, 240, 400, dtype=np.float32), (420, 400))
    assert find_page(grey) is None
