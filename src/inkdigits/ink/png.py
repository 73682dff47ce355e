"""PNG: drawings → shade and opacity in a fraction of Pillow's time; and pictures → files.

Files are read here as browsers and drawing programs write them: 8 bits per sample, not interlaced,
no palette. Whatever else is left to Pillow. Time is saved in three ways: a faster inflate; of a
drawing on a background of one colour only its box is unfiltered; and of equal channels only one is.
Pillow's loops in C unfilter: they are given a deflate stream that holds the rows as they are (RFC
1951, section 3.2.4).
"""

from __future__ import annotations

import io
import struct
from typing import Final, NamedTuple

import numpy as np
from PIL import Image
from zlib_ng import zlib_ng

from inkdigits.types import Pixels

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Some 12 bytes are held per pixel; a larger picture is no browser's drawing.
MAX_PIXELS: Final = 4_000_000

# The signature; of IHDR its length, type, width, height, depth, colour type, compression, filter
# and interlace methods, and its CRC (W3C "PNG specification", third edition, section 11.2.1).
_HEAD: Final = struct.Struct(">8sI4sIIBBBBBI")
_CHANNELS: Final = {0: 1, 2: 3, 4: 2, 6: 4}
# Chunks that do not change the pixels' values, with their only length. Pillow reads the first four
# and skips the last; other chunks may hold an orientation, a transparent colour or an error.
_HARMLESS: Final = {b"sRGB": 1, b"gAMA": 4, b"pHYs": 9, b"cHRM": 32, b"tIME": 7}
_SUB, _PAETH = 1, 4
_LONGEST_STORED = 0xFFFF
_InflateError: type[Exception] = zlib_ng.error  # type: ignore[assignment]  # an error of its stub


class Drawing(NamedTuple):
    """The part of a picture that is drawn on; all around it is background, if it has one."""

    shade: Pixels | int  # (h, w) luminance; one where it is the same everywhere
    alpha: Pixels | int  # (h, w) opacity, likewise
    top: int
    left: int
    whole: tuple[int, int]  # height and width of the picture
    background: tuple[int, int] | None  # its shade and its opacity; None: the part is all of it


def encode_png(picture: Image.Image | Pixels, compress_level: int = 6) -> bytes:
    r"""Return a PNG file of a Pillow image or of an array (H, W) or (H, W, 3 or 4) uint8.

    ``compress_level`` is zlib's, from 0 (fast) to 9 (small).

    >>> encode_png(np.zeros((2, 3), np.uint8))[:4]
    b'\x89PNG'
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def read_drawing(content: bytes, max_pixels: int) -> Drawing | None:
    """Return the drawing of a PNG; None of another kind, not sound or of more pixels.

    Luminance and opacity are as Pillow has them after converting to "L" and "A".

    >>> picture = np.full((90, 90), 255, np.uint8)
    >>> picture[30:60, 40] = 0
    >>> drawing = read_drawing(encode_png(picture), max_pixels=8100)
    >>> drawing.alpha, (drawing.top, drawing.left), drawing.background
    (255, (30, 40), (255, 255))
    """
    if len(content) < _HEAD.size:
        return None
    head = _HEAD.unpack_from(content)
    width, height, depth, kind = head[3:7]
    channels = _CHANNELS.get(kind)
    if (
        head[:3] != (SIGNATURE, 13, b"IHDR")
        or depth != 8
        or head[7:10] != (0, 0, 0)
        or channels is None
        or not 0 < width * height <= min(max_pixels, MAX_PIXELS)
        or head[10] != zlib_ng.crc32(content[12:29])
    ):
        return None
    compressed = _image_data(content)
    if compressed is None:
        return None
    # Bounded: inflating stops at the header's number of pixels.
    size = height * (1 + width * channels)
    inflater = zlib_ng.decompressobj()
    try:
        inflated = inflater.decompress(compressed, size + 1)
    except _InflateError:
        return None
    if len(inflated) != size or not inflater.eof:
        return None
    rows = np.frombuffer(inflated, np.uint8).reshape(height, -1)
    return _drawing(rows, width, channels) if rows[:, 0].max() <= _PAETH else None


def _image_data(content: bytes) -> bytes | None:
    """Return the IDAT chunks of a PNG that has only harmless ones beside them."""
    position = _HEAD.size
    parts: list[bytes] = []
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4])
        kind = content[position + 4 : position + 8]
        end = position + 8 + length
        if kind == b"IDAT":
            # Pillow does not check their CRC either: the stream has a checksum of its own.
            parts.append(content[position + 8 : end])
        elif kind == b"IEND" and parts:
            return b"".join(parts)
        elif (
            parts
            or length != _HARMLESS.get(kind)
            or content[end : end + 4] != zlib_ng.crc32(content[position + 4 : end]).to_bytes(4)
        ):
            return None
        position = end + 4
    return None


def _drawing(rows: Pixels, width: int, channels: int) -> Drawing:
    """Return the drawing that filtered rows (H, 1 + W * C) hold, or the whole picture."""
    filters, residuals, whole = rows[:, 0], rows[:, 1:], (len(rows), width)
    # Where there is no residual but 0, all above and to the left is background, and so is this.
    changes = np.bitwise_or.reduce(residuals, axis=0).reshape(width, channels)[1:]
    columns = np.bitwise_or.reduce(changes, axis=1).nonzero()[0]
    changed = np.bitwise_or.reduce(residuals[:, channels:], axis=1).nonzero()[0]
    if not len(columns) or not changed[0] or not _has_background(filters, residuals[:, :channels]):
        pixels = residuals.reshape(*whole, channels)
        shade, alpha = _read(pixels, filters.tobytes(), np.ones(channels, np.uint8))
        return Drawing(shade, alpha if channels % 2 == 0 else 255, 0, 0, whole, None)
    varies = np.bitwise_or.reduce(changes, axis=0)
    top, left = int(changed[0]), int(columns[0]) + 1
    # One row and one column more: without a residual they may still repeat what is before them.
    # Where they do, all that follows is read.
    tight = min(int(changed[-1]) + 2, len(rows)), min(int(columns[-1]) + 3, width)
    for bottom, right in (tight, whole):
        # A row and a column of the background come first.
        inner = residuals[top:bottom, left * channels : right * channels]
        box = np.zeros((bottom - top + 1, right - left + 1, channels), np.uint8)
        box[0, 0], box[1:, 0] = residuals[0, :channels], residuals[top:bottom, :channels]
        box[1:, 1:] = inner.reshape(bottom - top, -1, channels)
        found = _read(box, bytes([_SUB]) + filters[top:bottom].tobytes(), varies)
        if all(
            (right == width or (values[:, -1] == values[0, 0]).all())
            and (bottom == len(rows) or (values[-1] == values[0, 0]).all())
            for values in found
            if values.size > 1
        ):
            break
    parts = [values[1:, 1:] if values.size > 1 else int(values[0, 0]) for values in found]
    background = int(found[0][0, 0]), int(found[1][0, 0])
    return Drawing(parts[0], parts[1], top, left, whole, background)


def _read(residuals: Pixels, filters: bytes, varies: Pixels) -> tuple[Pixels, Pixels]:
    """Return shade and opacity of residuals (H, W, C): (H, W), or (1, 1) of what never varies."""
    channels = residuals.shape[2]
    has_alpha = channels % 2 == 0
    colours = slice(0, 1 if channels >= 3 and _is_grey(residuals) else channels - has_alpha)
    shade = _unfiltered(residuals, filters, colours, varies[colours])
    if not has_alpha:
        return shade, np.full((1, 1), 255, np.uint8)
    return shade, _unfiltered(residuals, filters, slice(channels - 1, channels), varies[-1:])


def _has_background(filters: Pixels, first: Pixels) -> bool:
    """Return whether column 0 (H, C) is of one colour, and no residual continues it."""
    kinds = filters.tobytes()
    # All filters but "none" predict the background from itself, and in row 0 from what is to the
    # left alone.
    if first[0].any() and (kinds[0] not in (_SUB, _PAETH) or 0 in kinds):
        return False
    for column in first.T:
        residuals, unused = column.tobytes(), bytes(251)
        value = residuals[0]
        # Each filter has one residual in column 0 for that value (section 9.2).
        expected = kinds.translate(bytes([value, value, 0, value - value // 2, 0]) + unused)
        if residuals[1:] != expected[1:]:
            return False
    return True


def _is_grey(residuals: Pixels) -> bool:
    """Return whether red, green and blue are equal, which they are where their residuals are."""
    if residuals.shape[2] == 4:
        words = residuals.view("<u4")
        differences = words >> 8
        differences ^= words
        return not int(np.bitwise_or.reduce(differences, axis=None)) & 0xFFFF
    green = residuals[:, :, 1]
    return bool((residuals[:, :, 0] == green).all() and (residuals[:, :, 2] == green).all())


def _unfiltered(residuals: Pixels, filters: bytes, part: slice, varies: Pixels) -> Pixels:
    """Return the luminance of one channel or of three: (H, W), or (1, 1) of what never varies."""
    kept = residuals[:, :, part] if varies.any() else residuals[:1, :1, part]
    height, width, channels = kept.shape
    if height * width * channels == 1:
        return kept[:, :, 0]  # No filter changes the first pixel.
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = np.frombuffer(filters, np.uint8)[:height]
    rows[:, 1:] = kept.reshape(height, -1)
    mode = "L" if channels == 1 else "RGB"
    image = Image.new(mode, (width, height), None)  # every pixel is about to be written
    image.frombytes(_stored(rows.reshape(-1)), "zip", mode, 0)
    return np.asarray(image if channels == 1 else image.convert("L"))


def _stored(content: Pixels) -> bytes:
    """Return content (N,) as a zlib stream (RFC 1950) that does not compress it."""
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(content), _LONGEST_STORED):
        block = content[start : start + _LONGEST_STORED]
        is_last = start + len(block) == len(content)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block.data]
    parts.append(zlib_ng.adler32(content).to_bytes(4))
    return b"".join(parts)
