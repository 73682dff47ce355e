"""What is told of a file before it is decoded; each hostile file is rejected by its headers."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin
from support.hostile_pictures import (
    chunk,
    drawing,
    exif_of_large_tags,
    gif_with,
    jpeg_of_scans,
    jpeg_with,
    png_with,
    rle_bmp,
    tiff,
    webp_of_canvas,
)
from support.pictures import encoded

from inkdigits.errors import (
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink.container import MAX_BLOCKS, look_ahead
from inkdigits.ink.decode import Limits, read_grey

COMMENT = b"\x21\xfe" + b"\x01a" * MAX_BLOCKS + b"\0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (jpeg_of_scans(33), "33 scans; the limit is 32. Save it as a baseline JPEG"),
        (webp_of_canvas(16_384, 16_384), "WebP has 16384 x 16384"),
        (webp_of_canvas(5000, 2501), "the limit is 12,500,000"),
        (gif_with(b"", place=(60_000, 60_000)), "GIF has 60008 x 60008"),
        (tiff(28, 28, [(322, 4, 1, 32_768), (323, 4, 1, 32_768)]), "tile or strip has 32768"),
        (tiff(28, 28, [(278, 4, 1, 0x7FFFFFFF)]), "tile or strip"),
        (tiff(5000, 5000, [(277, 3, 1, 6), (258, 3, 1, 16)]), "limit is 25,000,000"),
        (tiff(5000, 5000, [(322, 4, 1, 16), (323, 4, 1, 1_000_000)]), "whole tiles"),
        (tiff(60_000, 60_000), "60000 x 60000"),
    ],
)
def test_file_over_a_limit_is_rejected_by_its_headers(content: bytes, message: str) -> None:
    with pytest.raises(ImageTooLargeError, match=message):
        read_grey(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rle_bmp(5000, 5000), "RLE"),
        (tiff(28, 28, [(259, 3, 1, 7)]), "compression 7"),
        (b"II\x2b\0" + bytes(20), "BigTIFF"),
        (jpeg_with(b"\xff\xfe\0\2" * MAX_BLOCKS), "JPEG has more than 16,384 parts"),
        (png_with(chunk(b"abCd", b"") * MAX_BLOCKS), "PNG has more than"),
        (png_with(chunk(b"IDAT", b"") * MAX_BLOCKS), "PNG has more than"),
        (webp_of_canvas(9, 9) + b"ABCD\0\0\0\0" * MAX_BLOCKS, "WebP has more than"),
        (gif_with(COMMENT), "GIF has more than"),
        (gif_with(b"\x21\xfe\0" * MAX_BLOCKS), "GIF has more than"),
        (tiff(5000, 5000, [(322, 4, 1, 1), (323, 4, 1, 1)]), "TIFF has more than"),
    ],
)
def test_file_whose_decoding_is_not_bounded_is_unsupported(content: bytes, message: str) -> None:
    with pytest.raises(UnsupportedImageError, match=message):
        read_grey(content)


@pytest.mark.parametrize(
    "content",
    [
        b"MM is not a picture",
        b"BM",
        b"GIF89a",
        b"\xff\xd8\xff",
        b"\xff\xd8" + b"\xff" * 100_000,
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 30,
        b"RIFF\0\0\0\0WEBP",
        b"RIFF\0\0\0\0WEBPVP8X",
        tiff(0, 28),
        tiff(28, 28, [(322, 4, 1, 0)]),
        tiff(28, 28, [(277, 16, 1, 6)]),
        tiff(28, 28, [(256, 3, 1, 28), (256, 3, 1, 60_000)]),
        tiff(28, 28, [(273, 4, 1000, 0), (278, 4, 1, 28)]),
        tiff(28, 28, [(273, 4, 4_000_000, 8)]),
    ],
)
def test_damaged_headers_are_unreadable(content: bytes) -> None:
    with pytest.raises(UnreadableImageError):
        read_grey(content)


@pytest.mark.parametrize("scans", [6, 32])
def test_progressive_jpeg_within_the_limit_is_read(scans: int) -> None:
    assert read_grey(jpeg_of_scans(scans)).shape == (64, 64)
    with pytest.raises(ImageTooLargeError, match="limit is 5"):
        read_grey(jpeg_of_scans(scans), Limits(max_scans=5))


def test_metadata_is_left_out_and_the_pixels_stay() -> None:
    image = drawing()
    exif = exif_of_large_tags(5000, 5000)
    segments = b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0" + exif[:64_992]
    huge = exif_of_large_tags(60_000, 1_000_000)
    text = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000)))
    png = png_with(chunk(b"eXIf", huge) + text * 20 + chunk(b"iCCP", b"\0" * 50_000), image)
    plain = encoded(image, "PNG")
    assert look_ahead(png, 10_000, 1).content == plain
    assert np.array_equal(read_grey(png), read_grey(plain))
    jpeg = jpeg_with(segments * 100)
    assert len(look_ahead(jpeg, 100, 1).content) < 1000
    assert np.array_equal(read_grey(jpeg), read_grey(jpeg_with(b"")))
    assert np.array_equal(read_grey(gif_with(b"\x21\xfe\x03abc\0" * 50)), read_grey(gif_with(b"")))


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def xmp(orientation: int) -> bytes:
    return b'<x:xmpmeta tiff:Orientation="%d"/>' % orientation


def text_of_exif(orientation: int) -> bytes:
    data = exif(orientation)
    return b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(data), data.hex().encode())


def turned(kind: str, orientation: int) -> bytes:
    image = drawing()
    if kind == "JPEG with XMP":
        packet = b"http://ns.adobe.com/xap/1.0/\0" + xmp(orientation)
        content = encoded(image, "JPEG")
        segment = b"\xff\xe1" + struct.pack(">H", len(packet) + 2) + packet
        return content[:2] + segment + content[2:]
    if kind == "PNG with text":
        return png_with(chunk(b"tEXt", text_of_exif(orientation)), image)
    if kind == "PNG with compressed text":
        keyword, _, text = text_of_exif(orientation).partition(b"\0")
        return png_with(chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text)), image)
    if kind == "PNG with XMP":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", xmp(orientation).decode())
        return encoded(image, "PNG", pnginfo=info)
    if kind == "WEBP with XMP":
        return encoded(image, "WEBP", lossless=True, xmp=xmp(orientation))
    if kind == "TIFF":
        return encoded(image, "TIFF", tiffinfo={0x0112: orientation})
    return encoded(image, kind, exif=exif(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "kind",
    [
        *("JPEG", "PNG", "WEBP", "TIFF", "JPEG with XMP", "PNG with XMP", "WEBP with XMP"),
        *("PNG with text", "PNG with compressed text"),
    ],
)
def test_picture_is_turned_upright_as_pillow_turns_it(kind: str, orientation: int) -> None:
    content = turned(kind, orientation)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    assert np.array_equal(read_grey(content), expected)


def test_broken_exif_leaves_the_picture_as_it_is() -> None:
    for broken in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"text", exif(9)[6:]):
        content = png_with(chunk(b"eXIf", broken), drawing())
        assert np.array_equal(read_grey(content), np.asarray(drawing()))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_beginning_of_a_file_is_read_or_rejected(kind: str) -> None:
    content = encoded(drawing(), kind)
    for length in range(min(len(content), 400)):
        with contextlib.suppress(ImageError):
            look_ahead(content[:length], 10_000, 32)
