import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from inkdigits.ink import decode as decoding
from inkdigits.ink.decode import read_grey, to_grey

SIDES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
SHADES = st.sampled_from([0, 0, 0, 40, 127, 128, 200, 255, 255]) | st.integers(0, 255)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def composited(shade: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """By its definition, in double precision."""
    visible = alpha > 127
    if not visible.any():
        visible = alpha > 0
        if not visible.any():
            return np.full(shade.shape, 255.0)
    rows, columns = np.nonzero(visible)
    low, middle, high = np.percentile(shade[visible].astype(float), [1, 50, 99])
    is_card = visible.sum() >= 0.6 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    paper = middle if is_card and high - low >= 40 else 0.0 if middle >= 128 else 255.0
    return shade * (alpha / 255) + paper * (1 - alpha / 255)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_transparency_is_composited_on_the_paper_that_shows_the_ink(data):
    shape = data.draw(SIDES)
    shade, alpha = (data.draw(hnp.arrays(np.uint8, shape, elements=SHADES)) for _ in range(2))
    image = Image.merge("LA", [Image.fromarray(shade), Image.fromarray(alpha)])
    expected = composited(shade, alpha)
    assert np.abs(to_grey(image) - expected).max() < 1e-3
    assert np.abs(read_grey(png(image)) - expected).max() < 1e-3


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_fast_way_into_a_png_gives_what_pillow_gives(data):
    mode = data.draw(st.sampled_from(["L", "LA", "RGB", "RGBA"]))
    shape = (*data.draw(SIDES), len(mode))
    pixels = data.draw(hnp.arrays(np.uint8, shape, elements=SHADES))
    if mode != "LA":
        content = png(Image.fromarray(pixels if len(mode) > 1 else pixels[..., 0]))
    else:
        content = png(Image.merge("LA", [Image.fromarray(pixels[..., i]) for i in range(2)]))
    with Image.open(io.BytesIO(content)) as image:
        expected = to_grey(image)
    found = read_grey(content)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_plain_png_is_not_given_to_pillow_to_decode(mode, monkeypatch):
    drawing = Image.radial_gradient("L").convert(mode)
    content = png(drawing)
    expected = np.asarray(drawing.convert("L"))
    monkeypatch.setattr(decoding, "_open", None)
    assert np.array_equal(read_grey(content), expected)


@pytest.mark.parametrize("sampling", [0, 2], ids=["full colour", "colour at half the size"])
def test_jpeg_is_read_without_its_colours_as_it_is_with_them(sampling):
    random = np.random.default_rng(1)
    flat = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(flat).resize((160, 120), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90, subsampling=sampling)
    with Image.open(buffer) as image:
        with_colours = np.asarray(image.convert("L")).astype(int)
    found = read_grey(buffer.getvalue())
    # What is clipped in one colour only isn't clipped in the luminance.
    assert np.abs(found - with_colours).mean() < 1.5


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_jpeg_of_another_mode_is_read(mode):
    buffer = io.BytesIO()
    Image.radial_gradient("L").convert(mode).save(buffer, "JPEG", quality=95)
    expected = np.asarray(Image.radial_gradient("L"), dtype=float)
    assert np.abs(read_grey(buffer.getvalue()) - expected).mean() < 4
