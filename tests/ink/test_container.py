"""What is told of a file before it is decoded; each hostile file is rejected by its headers."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from support import hostile_pictures as hostile
from support.hostile_pictures import chunk, drawing, gif_with, jpeg_with, png_with, tiff
from support.pictures import encoded, grey_of

from inkdigits.errors import ImageError
from inkdigits.errors import ImageTooLargeError as TooLarge
from inkdigits.errors import UnreadableImageError as Unreadable
from inkdigits.errors import UnsupportedImageError as Unsupported
from inkdigits.ink.container import MAX_PARTS, decode
from inkdigits.ink.decode import Limits

RGBA_16 = [(277, 3, 1, 4), (258, 3, 1, 16), (262, 3, 1, 2), (338, 3, 1, 2)]


def tiles(width, height, n=1):
    """Return the tags of a TIFF that is made of tiles."""
    return [(322, 4, 1, width), (323, 4, 1, height), (324, 4, n, 0), (325, 4, n, 0)]


DAMAGED = [
    *(b"MM is not a picture", b"BM", b"GIF89a", b"\xff\xd8\xff", b"\xff\xd8" + b"\xff" * 100_000),
    *(b"\x89PNG\r\n\x1a\n" + b"\xff" * 30, b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8X"),
    tiff(0, 28),
    tiff(28, 28, [(322, 4, 1, 0)]),
    tiff(28, 28, [(277, 16, 1, 6)]),
    tiff(28, 28, [(256, 3, 1, 28), (256, 3, 1, 60_000)]),
    tiff(28, 28, [(273, 4, 1000, 0), (278, 4, 1, 28)]),
    tiff(28, 28, [(273, 4, 4_000_000, 8)]),
    tiff(28, 28, [(273, 4, 1, 0), (322, 4, 2, 8), (323, 4, 1, 0)]),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("error", "content", "message"),
    [
        (TooLarge, hostile.jpeg_of_scans(33), "33 scans; the limit is 32. Save it as a baseline"),
        (TooLarge, hostile.webp_of_canvas(16_384, 16_384), "far over the limit"),
        (TooLarge, hostile.webp_of_canvas(5000, 2501), "the limit is 12,500,000"),
        (TooLarge, gif_with(b"", place=(60_000, 60_000)), "far over the limit of 25,000,000"),
        (TooLarge, tiff(28, 28, tiles(32_768, 32_768)), "TIFF has 32768 x 32768"),
        (TooLarge, tiff(5000, 5000, tiles(16, 1_000_000)), "TIFF has 5008 x 1000000"),
        (TooLarge, tiff(5000, 5000, [*RGBA_16, (273, 4, 1, 0)]), "TIFF has 5000 x 10000"),
        (TooLarge, tiff(60_000, 60_000, [(273, 4, 1, 0)]), "far over the limit"),
        (Unsupported, hostile.rle_bmp(5000, 5000), "BMP has a compression"),
        (Unsupported, encoded(drawing(), "TIFF", compression="jpeg"), "TIFF has a compression"),
        (Unreadable, b"II\x2b\0" + bytes(20), "not a picture"),
        (Unreadable, jpeg_with(b"\xff\xfe\0\2" * MAX_PARTS), "JPEG .* 16,384 parts"),
        (Unreadable, png_with(chunk(b"abCd", b"") * MAX_PARTS), "PNG .* 16,384 parts"),
        (Unreadable, gif_with(b"\x21\xfe\0" * MAX_PARTS), "GIF .* 16,384 parts"),
        (Unreadable, tiff(5000, 5000, tiles(1, 1, MAX_PARTS + 1)), "TIFF .* 16,384 parts"),
        *((Unreadable, content, None) for content in DAMAGED),
    ],
)
def test_file_is_rejected_by_its_headers(error, content, message):
    with pytest.raises(error, match=message):
        grey_of(content)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_of_32_bits_may_have_half_as_many_pixels(mode):
    content = encoded(Image.new(mode, (10, 10)), "TIFF")
    assert grey_of(content, Limits(max_pixels=200)).shape == (10, 10)
    with pytest.raises(TooLarge, match="takes twice the memory, has 10 x 10"):
        grey_of(content, Limits(max_pixels=199))


@pytest.mark.parametrize("scans", [6, 32])
def test_progressive_jpeg_within_the_limit_is_read(scans):
    content = hostile.jpeg_of_scans(scans)
    assert grey_of(content).shape == (64, 64)
    with pytest.raises(TooLarge, match="limit is 5"):
        grey_of(content, Limits(max_scans=5))


def test_metadata_is_left_out_and_the_pixels_stay():
    image = drawing()
    large, huge = hostile.exif_of_large_tags(5000, 5000), hostile.exif_of_large_tags(60_000, 10**6)
    segments = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + large[:64_992]
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000)))
    png = png_with(chunk(b"eXIf", huge) + text * 20 + chunk(b"iCCP", b"\0" * 50_000), image)
    plain = encoded(image, "PNG")
    assert not decode(png, 10_000, 1).info
    assert np.array_equal(grey_of(png), grey_of(plain))
    jpeg = jpeg_with(segments * 100)
    assert decode(jpeg, 100, 1).info.keys() == decode(jpeg_with(b""), 100, 1).info.keys()
    assert np.array_equal(grey_of(jpeg), grey_of(jpeg_with(b"")))
    assert np.array_equal(grey_of(gif_with(b"\x21\xfe\x03abc\0" * 50)), grey_of(gif_with(b"")))


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def turned(orientation):
    """Return a picture of every kind that says which way up it is."""
    image, data = drawing(), exif(orientation)
    yield from (encoded(image, kind, exif=data) for kind in ("JPEG", "PNG", "WEBP"))
    yield encoded(image, "TIFF", tiffinfo={0x0112: orientation})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_turned_upright_as_pillow_turns_it(orientation):
    for content in turned(orientation):
        with Image.open(io.BytesIO(content)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("L"))
        assert np.array_equal(grey_of(content), expected)


def test_broken_exif_leaves_the_picture_as_it_is():
    for broken in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"text", exif(9)[6:]):
        content = png_with(chunk(b"eXIf", broken), drawing())
        assert np.array_equal(grey_of(content), np.asarray(drawing()))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_beginning_of_a_file_is_read_or_rejected(kind):
    content = encoded(drawing(), kind)
    for length in range(min(len(content), 400)):
        with contextlib.suppress(ImageError):
            decode(content[:length], 10_000, 32)
