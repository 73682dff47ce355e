import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from support.fakes import empty_png
from support.pictures import difference, encoded, seven

from inkdigits.errors import (
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink import decode as decoding
from inkdigits.ink.decode import Limits, read_grey, to_grey
from inkdigits.ink.normalize import preprocess
from inkdigits.ink.png import encode_png

SIDES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
SHADES = st.sampled_from([0, 0, 0, 40, 127, 128, 200, 255, 255]) | st.integers(0, 255)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
REFERENCE = preprocess(seven())


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
    behind = middle if is_card and high - low >= 40 else 0.0 if middle >= 128 else 255.0
    return shade * (alpha / 255) + behind * (1 - alpha / 255)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_transparency_is_composited_on_the_background_that_shows_the_ink(data):
    shape = data.draw(SIDES)
    shade, alpha = (data.draw(hnp.arrays(np.uint8, shape, elements=SHADES)) for _ in range(2))
    image = Image.merge("LA", [Image.fromarray(shade), Image.fromarray(alpha)])
    expected = composited(shade, alpha)
    assert np.abs(to_grey(image) - expected).max() < 1e-3
    assert np.abs(read_grey(encode_png(image)) - expected).max() < 1e-3


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_plain_png_is_not_given_to_pillow_to_decode(mode, monkeypatch):
    drawing = Image.radial_gradient("L").convert(mode)
    monkeypatch.setattr(decoding, "_open", None)
    assert np.array_equal(read_grey(encode_png(drawing)), np.asarray(drawing.convert("L")))


@pytest.mark.parametrize("sampling", [0, 2], ids=["full colour", "colour at half the size"])
def test_jpeg_is_read_without_its_colours_as_it_is_with_them(sampling):
    flat = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(flat).resize((160, 120), Image.Resampling.BICUBIC)
    content = encoded(picture, "JPEG", quality=90, subsampling=sampling)
    with Image.open(io.BytesIO(content)) as image:
        with_colours = np.asarray(image.convert("L")).astype(int)
    # A value that is clipped in one colour only is not clipped in the luminance.
    assert np.abs(read_grey(content) - with_colours).mean() < 1.5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"])
def test_every_mode_reads_alike(mode):
    wide = Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257)
    image = wide if mode == "I;16" else seven().convert(mode)
    assert image.mode == mode
    assert difference(preprocess(image), REFERENCE) < 3


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_reads_alike(kind):
    assert difference(preprocess(encoded(seven(), kind)), REFERENCE) < 3


def test_samples_of_16_bits_and_floats_from_0_to_1_read_like_bytes():
    wide = Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257)
    assert difference(preprocess(encoded(wide)), REFERENCE) < 1
    floats = Image.fromarray(np.asarray(seven()).astype(np.float32) / 255)
    assert difference(preprocess(encoded(floats, "TIFF")), REFERENCE) < 1


def test_first_frame_of_an_animation_is_read():
    blank = Image.new("L", (200, 200), 255)
    content = encoded(seven(), "GIF", save_all=True, append_images=[blank])
    assert difference(preprocess(content), REFERENCE) < 3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (220, 30, 30)])
def test_transparent_drawing_reads_like_an_opaque_one(colour):
    ink = Image.eval(seven(), lambda value: 255 - value)
    drawing = Image.merge("RGBA", (*Image.new("RGB", ink.size, colour).split(), ink))
    assert difference(preprocess(encoded(drawing)), REFERENCE) < 1


def test_card_with_transparent_corners_is_read_by_its_own_ink():
    card = Image.new("LA", (240, 240), (0, 0))
    card.paste(Image.merge("LA", (seven(), Image.new("L", (200, 200), 255))), (20, 20))
    assert difference(preprocess(encoded(card)), REFERENCE) < 1


@pytest.mark.parametrize("size", [(7072, 7072), (60_000, 60_000)])
def test_decompression_bomb_is_rejected_before_it_is_decoded(size):
    # There is nothing to decode: if decoding were tried the error would be another one.
    with pytest.raises(ImageTooLargeError, match="25,000,000"):
        read_grey(empty_png(*size))


def test_too_many_bytes_are_rejected_with_the_limit(tmp_path):
    content = encoded(seven(), "BMP")
    limits = Limits(max_bytes=len(content) - 1)
    with pytest.raises(ImageTooLargeError, match=f"{limits.max_bytes:,}"):
        read_grey(content, limits)
    path = tmp_path / "seven.bmp"
    path.write_bytes(content)
    with pytest.raises(ImageTooLargeError, match=r"seven\.bmp"):
        read_grey(path, limits)


@pytest.mark.parametrize("picture", [np.zeros((11, 10), np.uint8), Image.new("L", (11, 10))])
def test_limit_on_pixels_holds_for_arrays_and_pillow_images_too(picture):
    with pytest.raises(ImageTooLargeError, match="the limit is 100"):
        read_grey(picture, Limits(max_pixels=100))


@pytest.mark.parametrize(
    ("picture", "error", "problem"),
    [
        (b"", UnreadableImageError, "empty"),
        (b"not a picture", UnreadableImageError, "PNG, JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnreadableImageError, "not a picture"),
        (b"\x89PNG\r\n\x1a\n", UnreadableImageError, "truncated"),
        ("nowhere.png", UnreadableImageError, r"nowhere\.png"),
        (7, UnsupportedImageError, "int"),
        (np.zeros((28, 28), np.float32), UnsupportedImageError, "uint8"),
        (np.zeros((28,), np.uint8), UnsupportedImageError, "28"),
        (np.zeros((28, 28, 2), np.uint8), UnsupportedImageError, "28, 28, 2"),
        (np.zeros((0, 28), np.uint8), UnsupportedImageError, "0, 28"),
        (Image.fromarray(np.full((9, 9), 70_000, np.int32)), UnsupportedImageError, "70000"),
        *(
            (content[: len(content) * 2 // 3], UnreadableImageError, "truncated")
            for content in (encoded(seven(), k) for k in ("PNG", "JPEG", "WEBP", "BMP", "TIFF"))
        ),
    ],
)
def test_what_is_no_picture_is_rejected_with_what_it_is(picture, error, problem):
    with pytest.raises(error, match=problem):
        read_grey(picture)


VALID = [encoded(seven(40, 4), kind) for kind in FORMATS]


def test_paletted_png_without_its_palette_is_unreadable():
    whole = encoded(Image.new("P", (28, 28)), "PNG")
    start = whole.index(b"PLTE") - 4
    without = whole[:start] + whole[start + 12 + int.from_bytes(whole[start : start + 4], "big") :]
    with pytest.raises(UnreadableImageError, match="palette"):
        read_grey(without)


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=400, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_damaged_picture_is_read_or_rejected_and_nothing_else(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        ink = preprocess(bytes(damaged))
    except ImageError:
        return
    assert ink.shape == (28, 28)
