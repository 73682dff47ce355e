import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from support.hostile_pictures import chunk, png_with
from support.pictures import encoded, seven

from inkdigits.ink.png import MAX_PIXELS, SIGNATURE, read_drawing

LIMIT = 1_000_000
KINDS = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}


def assert_like_pillow(content):
    """Return whether it was read; fail unless it was read as Pillow does."""
    found = read_drawing(content, LIMIT)
    if found is None:
        return False
    image = Image.open(io.BytesIO(content))
    image.load()
    shade, alpha = image.convert("RGB").convert("L"), image.convert("RGBA").getchannel("A")
    assert found.whole == (image.height, image.width)
    behind = found.background or (0, 0)
    channels = zip(found[:2], behind, map(np.asarray, (shade, alpha)), strict=True)
    for mine, behind, pillows in channels:
        whole = np.full(found.whole, behind)
        part = whole[found.top :, found.left :]
        if not isinstance(mine, int):
            part = part[: mine.shape[0], : mine.shape[1]]
            assert part.shape == mine.shape
        part[:] = mine
        assert (pillows == whole).all()
    return True


def filtered(pixels, filters):
    """Rows of a picture (H, W, C) by PNG's filters (W3C "PNG specification", section 9.2)."""
    height = len(pixels)
    here = pixels.astype(int)
    left, above, corner = (np.zeros_like(here) for _ in range(3))
    left[:, 1:], above[1:], corner[1:, 1:] = here[:, :-1], here[:-1], here[:-1, :-1]
    guess = left + above - corner
    a, b, c = (abs(guess - other) for other in (left, above, corner))
    paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
    predicted = np.stack([np.zeros_like(here), left, above, (left + above) // 2, paeth])
    residuals = (here - predicted[filters, np.arange(height)]).astype(np.uint8)
    rows = np.concatenate([filters[:, None], residuals.reshape(height, -1)], axis=1)
    return rows.astype(np.uint8).tobytes()


def assembled(width, height, data, kind=0, extra=b"", splits=1):
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    length = -(-len(data) // splits)
    parts = [chunk(b"IDAT", data[i : i + length]) for i in range(0, len(data), length)]
    return SIGNATURE + chunk(b"IHDR", header) + extra + b"".join(parts) + chunk(b"IEND", b"")


def png(pixels, filters, mode, **options):
    height, width, _ = pixels.shape
    data = zlib.compress(filtered(pixels, filters))
    return assembled(width, height, data, KINDS[mode], **options)


@st.composite
def drawings(draw):
    """A few coloured shapes on a background of one colour, with margins or without; or noise."""
    mode = draw(st.sampled_from(sorted(KINDS)))
    channels = len(mode)
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    colour = st.lists(st.sampled_from([0, 0, 1, 127, 128, 255, 255]), min_size=4, max_size=4)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = np.empty((height, width, channels), np.uint8)
    pixels[:] = draw(colour)[:channels]
    for _ in range(draw(st.integers(0, 3))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        shape = pixels[top : top + draw(st.integers(1, 20)), left : left + draw(st.integers(1, 20))]
        shape[:] = draw(colour)[:channels]
        if draw(st.booleans()):
            varied = draw(st.integers(0, channels))
            shape[:, :, varied:] += random.integers(0, 9, shape[:, :, varied:].shape, np.uint8)
    if channels >= 3 and draw(st.booleans()):
        pixels[:, :, 1:3] = pixels[:, :, :1]
    return pixels, mode


@given(drawings(), st.data())
@settings(max_examples=600, deadline=None)
def test_drawing_by_any_filters_is_read_as_pillow_reads_it(drawing, data):
    pixels, mode = drawing
    height = len(pixels)
    some = st.lists(st.integers(0, 4), min_size=height, max_size=height)
    same = st.integers(0, 4).map(lambda kind: [kind] * height)
    filters = np.array(data.draw(some | same))
    content = png(pixels, filters, mode, splits=data.draw(st.integers(1, 3)))
    assert_like_pillow(content)


STRIPES = np.full((24, 30), 255)
STRIPES[3:20, 4:25] = np.where(np.add.outer(np.arange(17), np.arange(21)) % 11 < 4, 9, 255)
VALID = [
    png(
        STRIPES[..., None] * np.ones(len(mode), np.uint8),
        1 + np.arange(24) % 4,
        mode,
        extra=chunk(b"gAMA", b"\0\0\xb1\x8f"),
        splits=2,
    )
    for mode in KINDS
]


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=600, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_damaged_png_is_read_as_pillow_reads_it_or_left_to_it(content, data):
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.integers(0, 3)):
            case 0:
                damaged[place] = data.draw(st.integers(0, 255))
            case 1:
                del damaged[place : place + data.draw(st.integers(1, 12))]
            case 2:
                damaged[place:place] = data.draw(st.binary(min_size=1, max_size=12))
            case 3:
                damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        assume(damaged)
    # Pillow raises if it does not read what was read here.
    assert_like_pillow(bytes(damaged))


@pytest.mark.parametrize("mode", KINDS)
@pytest.mark.parametrize("ink", [0, 255])
def test_every_plain_kind_and_what_pillow_writes_is_read(mode, ink):
    assert assert_like_pillow(VALID[list(KINDS).index(mode)])
    drawing = Image.new("L", (60, 50), 0)
    ImageDraw.Draw(drawing).line([(20, 10), (40, 35)], fill=200, width=5)
    flat = Image.new("L", drawing.size, ink) if "A" in mode else drawing
    channels = [drawing if name == "A" else flat for name in mode]
    assert assert_like_pillow(encoded(Image.merge(mode, channels)))


GREY = Image.radial_gradient("L")


@pytest.mark.parametrize(
    "content",
    [
        *(encoded(GREY.convert("P")), encoded(GREY.convert("1"))),
        encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)),
        *(encoded(GREY, transparency=7), encoded(GREY.convert("RGB"), transparency=(7, 7, 7))),
        png_with(chunk(b"eXIf", b"II*\0"), GREY),
        png_with(chunk(b"tEXt", b"Title\0seven"), GREY),
        encoded(GREY, save_all=True, append_images=[Image.new("L", GREY.size)]),
        *(encoded(GREY)[:-20], encoded(GREY)[:20], b""),
        assembled(MAX_PIXELS + 1, 1, b"\0"),
    ],
    ids=[
        *("palette", "1 bit", "16 bits", "grey made transparent", "colour made transparent"),
        *("turned by EXIF", "with text", "animated", "truncated", "header alone", "empty", "huge"),
    ],
)
def test_what_is_not_plain_or_not_sound_is_left_to_pillow(content):
    assert read_drawing(content, 10**9) is None


def test_more_pixels_than_the_limit_are_left_to_pillow():
    content = encoded(seven(256))
    assert read_drawing(content, 256 * 256) is not None
    assert read_drawing(content, 256 * 256 - 1) is None


def test_no_more_is_inflated_than_the_header_announces():
    bomb = assembled(10, 10, zlib.compress(bytes(50_000_000)))
    tracemalloc.start()
    assert read_drawing(bomb, LIMIT) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
