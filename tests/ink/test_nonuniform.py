import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw
from support.pictures import seven, shifted_difference

from inkdigits.ink.nonuniform import extract_ink, extract_ink_on_page, find_page
from inkdigits.ink.normalize import preprocess

REFERENCE = preprocess(seven())


def photo_of(drawing, light, noise=3.0):
    """A drawing (200, 200) in black on white, as a photo in that light."""
    covered = 1 - np.asarray(drawing, dtype=float) / 255
    surface = (235.0 * (1 - covered) + 40 * covered) * light
    surface += np.random.default_rng(5).normal(0, noise, surface.shape)
    return np.clip(np.rint(surface), 0, 255).astype(np.uint8)


GRADIENT = np.add.outer(np.linspace(0.45, 0.7, 200), np.linspace(0, 0.3, 200))
PLACE = np.square(np.linspace(-1, 1, 200))
VIGNETTE = 1 - 0.3 * np.add.outer(PLACE, PLACE)
SHADOW = np.where(np.arange(200) < 120, 1.0, 0.55) * np.ones((200, 200))
LIGHTS = pytest.mark.parametrize(
    "light", [GRADIENT, VIGNETTE, SHADOW], ids=["gradient", "vignette", "shadow"]
)


@LIGHTS
def test_photo_in_uneven_light_is_read_and_light_alone_is_blank(light):
    assert shifted_difference(preprocess(photo_of(seven(), light)), REFERENCE) < 8
    for noise in (0.0, 1.5, 4.0):
        assert not preprocess(photo_of(Image.new("L", (200, 200), 255), light, noise)).any()


def ruled(image, squared):
    lines = Image.new("L", image.size, 255)
    draw = ImageDraw.Draw(lines)
    for at in range(17, 200, 33):
        draw.line([(0, at), (200, at + 3)], fill=150, width=2)
        if squared:
            draw.line([(at, 0), (at - 3, 200)], fill=150, width=2)
    return ImageChops.darker(lines, image)


@pytest.mark.parametrize("squared", [False, True], ids=["ruled", "squared"])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_printed_lines_are_not_read(squared, noise):
    light = np.ones((200, 200)) if noise == 0.0 else GRADIENT
    white = ruled(Image.new("L", (200, 200), 255), squared)
    assert not preprocess(photo_of(white, light, noise)).any()
    picture = photo_of(ruled(seven(), squared), light, noise)
    assert shifted_difference(preprocess(picture), REFERENCE) < 12


def page_on_table(page, draw_on, table=70):
    """(420, 400) float32: a page of shade 220 on a table, with the camera's noise."""
    image = Image.new("L", (400, 420), table)
    draw = ImageDraw.Draw(image)
    if page:
        draw.polygon(page, fill=220)
    if draw_on:
        draw_on(draw)
    return (np.asarray(image) + np.random.default_rng(1).normal(0, 2, (420, 400))).astype("f4")


PAGE = [(60, 50), (330, 30), (350, 400), (30, 380)]
LEFT_HALF = [(0, 0), (200, 0), (200, 420), (0, 420)]


def line(*points, width, shade=40):
    return lambda draw: draw.line(list(points), fill=shade, width=width)


ONE = line((190, 120), (170, 280), width=14)


def test_ink_on_the_page_is_extracted_and_the_table_is_not():
    ink = extract_ink_on_page(page_on_table(PAGE, ONE))
    assert ink.shape[0] == pytest.approx(160, abs=30)
    assert ink.shape[1] < 70
    assert ink.max() == pytest.approx(180, abs=15)
    leaving = line((20, 200), (200, 220), width=9, shade=30)
    assert extract_ink_on_page(page_on_table(PAGE, leaving)) is None


def test_a_digit_in_the_shadow_beside_one_in_the_light_is_not_forgotten():
    first = line((100, 150), (90, 260), width=12)
    second = line((300, 150), (290, 260), width=12, shade=25)
    grey = page_on_table(LEFT_HALF, lambda draw: (first(draw), second(draw)), table=140)
    assert extract_ink_on_page(grey) is None
    assert extract_ink(grey).shape[1] > 180
    page, beside = find_page(page_on_table(LEFT_HALF, ONE, table=140))
    assert beside is not None
    assert page.picture.shape[1] == pytest.approx(200, abs=10)


def test_a_lamp_in_the_middle_does_not_matter_and_a_tiny_digit_is_found_but_not_a_faint_one():
    y, x = np.mgrid[-1:1:420j, -1:1:400j]
    lit = page_on_table(None, ONE, table=230) * (1 - 0.35 * (x * x + y * y))
    assert extract_ink(lit.astype(np.float32)).shape[1] < 70
    for shade, found in ((60, True), (195, False)):
        tiny = line((300, 100), (294, 130), width=6, shade=shade)
        assert (extract_ink(page_on_table(None, tiny, table=220)) is not None) == found


def test_beside_the_page_its_shade_continues():
    grey = page_on_table(PAGE, ONE)
    page, beside = find_page(grey)
    assert (beside, page.sign) == (None, -1)
    assert page.picture.shape == pytest.approx((370, 320), abs=14)
    assert np.abs(page.picture[[0, 0, -1, -1], [0, -1, 0, -1]] - 220).max() < 12
    assert (page.picture < 100).sum() == pytest.approx((grey < 55).sum(), rel=0.1)


@pytest.mark.parametrize(
    "draw_on",
    [
        None,  # a table alone
        ONE,  # a page that fills the picture
        lambda d: d.ellipse((90, 60, 310, 380), fill=220),  # a disc
        lambda d: d.ellipse((90, 60, 310, 380), outline=220, width=50),  # a zero
        lambda d: d.rectangle((90, 60, 310, 380), outline=220, width=40),
    ],
)
def test_other_shapes_and_fading_light_are_no_pages(draw_on):
    assert find_page(page_on_table(None, draw_on)) is None
    fading = np.broadcast_to(np.linspace(60, 240, 400, dtype=np.float32), (420, 400))
    assert find_page(fading) is None
