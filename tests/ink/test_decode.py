import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from support.fakes import empty_png
from support.pictures import difference, encoded, grey_of, seven

from inkdigits.errors import ImageError, ImageTooLargeError
from inkdigits.errors import UnreadableImageError as Unreadable
from inkdigits.errors import UnsupportedImageError as Unsupported
from inkdigits.ink import decode as decoding
from inkdigits.ink.decode import Limits
from inkdigits.ink.png import encode_png
from inkdigits.reader import preprocess

SIDES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)
SHADES = st.sampled_from([0, 0, 0, 40, 127, 128, 200, 255, 255]) | st.integers(0, 255)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
REFERENCE = preprocess(seven())
PALETTED = encoded(Image.new("P", (28, 28)), "PNG")
PALETTE = PALETTED.index(b"PLTE") - 4


def composited(shade, alpha):
    """By its definition, in double precision."""
    visible = next((v for v in (alpha > 127, alpha > 0) if v.any()), None)
    if visible is None:
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
    assert np.abs(grey_of(image) - expected).max() < 1e-3
    assert np.abs(grey_of(encode_png(image)) - expected).max() < 1e-3


def test_plain_png_is_not_given_to_pillow_to_decode(monkeypatch):
    monkeypatch.setattr(decoding, "_open", None)
    for mode in ("L", "RGBA"):
        drawing = seven().convert(mode)
        assert np.array_equal(grey_of(encode_png(drawing)), np.asarray(drawing.convert("L")))


@pytest.mark.parametrize("sampling", [0, 2], ids=["full colour", "colour at half the size"])
def test_jpeg_is_read_without_its_colours_as_it_is_with_them(sampling):
    flat = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(flat).resize((160, 120), Image.Resampling.BICUBIC)
    content = encoded(picture, "JPEG", quality=90, subsampling=sampling)
    with Image.open(io.BytesIO(content)) as image:
        with_colours = np.asarray(image.convert("L")).astype(int)
    # A value that is clipped in one colour only is not clipped in the luminance.
    assert np.abs(grey_of(content) - with_colours).mean() < 1.5


def in_mode(mode):
    wide = Image.fromarray(np.asarray(seven()).astype(np.uint16) * 257)
    return wide if mode == "I;16" else seven().convert(mode)


FLOATS = Image.fromarray(np.asarray(seven()).astype(np.float32) / 255)
ANIMATION = {"save_all": True, "append_images": [Image.new("L", (200, 200), 255)]}
CARD = Image.new("LA", (240, 240), (0, 0))
CARD.paste(Image.merge("LA", (seven(), Image.new("L", (200, 200), 255))), (20, 20))


def transparent(colour):
    ink = Image.eval(seven(), lambda value: 255 - value)
    return encoded(Image.merge("RGBA", (*Image.new("RGB", ink.size, colour).split(), ink)))


@pytest.mark.parametrize(
    ("picture", "limit"),
    [
        *((in_mode(m), 3) for m in ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F"]),
        *((encoded(seven(), kind), 3) for kind in FORMATS),
        (encoded(in_mode("I;16")), 1),
        (encoded(Image.fromarray(np.asarray(seven()).astype(np.uint16))), 1),  # 8 bits in 16
        (encoded(FLOATS, "TIFF"), 1),
        (encoded(seven(), "GIF", **ANIMATION), 3),
        *((transparent(colour), 1) for colour in [(0, 0, 0), (255, 255, 255), (220, 30, 30)]),
        (encoded(CARD), 1),
    ],
)
def test_every_mode_and_format_reads_alike(picture, limit):
    assert difference(preprocess(picture), REFERENCE) < limit


def test_file_of_too_many_bytes_is_named(tmp_path):
    path = tmp_path / "seven.bmp"
    path.write_bytes(encoded(seven(), "BMP"))
    with pytest.raises(ImageTooLargeError, match=r"seven\.bmp"):
        grey_of(path, Limits(max_bytes=path.stat().st_size - 1))


@pytest.mark.parametrize(
    ("picture", "limits", "message"),
    [
        # There is nothing to decode: if decoding were tried the error would be another one.
        (empty_png(7072, 7072), Limits(), "25,000,000"),
        (empty_png(60_000, 60_000), Limits(), "25,000,000"),
        (b"BM" * 501, Limits(max_bytes=1001), "1,001"),
        (np.zeros((11, 10), np.uint8), Limits(max_pixels=100), "the limit is 100"),
        (Image.new("L", (11, 10)), Limits(max_pixels=100), "the limit is 100"),
    ],
)
def test_limits_hold_for_every_kind_of_picture(picture, limits, message):
    with pytest.raises(ImageTooLargeError, match=message):
        grey_of(picture, limits)


@pytest.mark.parametrize(
    ("picture", "error", "problem"),
    [
        (b"", Unreadable, "empty"),
        (b"not a picture", Unreadable, "PNG, JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Unreadable, "not a picture"),
        (b"\x89PNG\r\n\x1a\n", Unreadable, "truncated"),
        ("nowhere.png", Unreadable, r"nowhere\.png"),
        (7, Unsupported, "int"),
        (np.zeros((28, 28), np.float32), Unsupported, "uint8"),
        (np.zeros((28,), np.uint8), Unsupported, "28"),
        (np.zeros((28, 28, 2), np.uint8), Unsupported, "28, 28, 2"),
        (np.zeros((0, 28), np.uint8), Unsupported, "0, 28"),
        (Image.fromarray(np.full((9, 9), 70_000, np.int32)), Unsupported, "70000"),
        (PALETTED[:PALETTE] + PALETTED[PALETTE + 15 :], Unreadable, "palette"),
        *(
            (encoded(seven(), k)[: -len(encoded(seven(), k)) // 3], Unreadable, "truncated")
            for k in FORMATS
            if k != "GIF"
        ),
    ],
)
def test_what_is_no_picture_is_rejected_with_what_it_is(picture, error, problem):
    with pytest.raises(error, match=problem):
        grey_of(picture)


VALID = [encoded(seven(40, 4), kind) for kind in FORMATS]


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=400, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_damaged_picture_is_read_or_rejected_and_nothing_else(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert preprocess(bytes(damaged)).shape == (28, 28)
