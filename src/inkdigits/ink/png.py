"""PNG: plain files → shade and opacity in a fraction of Pillow's time; and pictures → files.

Plain is what browsers and drawing programs write: 8 bits per sample, not interlaced, no palette
and nothing that changes the meaning of the pixels. Whatever is not plain and sound is left to
Pillow. Time is saved in three ways: a faster inflate; columns without a digit in them are never
unfiltered; and of equal channels only one is. Pillow's loops in C unfilter: they are given a
deflate stream that holds the rows as they are (RFC 1951, section 3.2.4).
"""

from __future__ import annotations

import io
import struct
from typing import Final

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
_MODES: Final = {1: "L", 3: "RGB"}
# Chunks that do not change the pixels' values, with their only length. Pillow reads the first four
# and skips the last; other chunks may hold an orientation, a transparent colour or an error.
_HARMLESS: Final = {b"sRGB": 1, b"gAMA": 4, b"pHYs": 9, b"cHRM": 32, b"tIME": 7}
_NONE, _SUB, _PAETH = 0, 1, 4
_LONGEST_STORED = 0xFFFF
_InflateError: type[Exception] = zlib_ng.error  # type: ignore[assignment]  # an error of its stub


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


def read_plain(content: bytes, max_pixels: int) -> tuple[Pixels | int, Pixels | int] | None:
    """Return shade and opacity of a plain PNG.

    Returns:
        Luminance and alpha, (H, W) uint8 each, as Pillow has them after converting to "L" and
        "A"; a channel that is the same everywhere is one int, but never both of them are. None
        for anything that is not plain and sound, of more pixels, or of one colour.

    >>> shade, alpha = read_plain(encode_png(np.uint8([[0, 255, 7]])), max_pixels=100)
    >>> shade.tolist(), alpha
    ([[0, 255, 7]], 255)
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
    rows = np.frombuffer(inflated, np.uint8).reshape(height, 1 + width * channels)
    filters = rows[:, 0].copy()
    if filters.max() > _PAETH:
        return None
    return _shade_and_opacity(rows[:, 1:], filters, channels)


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


def _shade_and_opacity(
    residuals: Pixels, filters: Pixels, channels: int
) -> tuple[Pixels | int, Pixels | int] | None:
    """Return both for filtered rows (H, W * C) and their filters (H,)."""
    width = residuals.shape[1] // channels
    # Where a column has no residual but 0, the filters may have predicted all of it.
    changes = np.bitwise_or.reduce(residuals, axis=0).reshape(width, channels)[1:]
    columns = np.bitwise_or.reduce(changes, axis=1).nonzero()[0]
    if not len(columns):
        return None
    # And the next one, where the filter "up" returns to the background without a residual.
    narrow = slice(int(columns[0]) + 1, min(int(columns[-1]) + 3, width))
    varies = [bool(bits) for bits in np.bitwise_or.reduce(changes, axis=0).tolist()]
    found = _read_columns(residuals, filters, varies, narrow)
    return found or _read_columns(residuals, filters, [True] * channels, slice(1, width))


def _read_columns(
    residuals: Pixels, filters: Pixels, varies: list[bool], columns: slice
) -> tuple[Pixels | int, Pixels | int] | None:
    """Return column 0 and these; None where the others differ from column 0."""
    channels = len(varies)
    width = residuals.shape[1] // channels
    read = residuals[:, (columns.start - 1) * channels : columns.stop * channels].copy()
    read[:, :channels] = residuals[:, :channels]
    pixels = read.reshape(len(read), -1, channels)
    has_alpha = channels % 2 == 0
    colours = channels - has_alpha
    parts = [slice(0, 1 if colours == 3 and _is_grey(pixels) else colours)]
    if has_alpha:
        parts.append(slice(colours, channels))
    found: list[Pixels | int] = []
    for part in parts:
        if part.stop == part.start + 1 and not varies[part.start]:
            constant = _constant(pixels[:, 0, part.start], filters)
            if constant is not None:
                found.append(constant)
                continue
        kept = pixels[:, :, part] if any(varies[part]) else pixels[:, :1, part]
        image = _unfilter(kept, filters)
        values = np.asarray(image)
        is_whole = kept.shape[1] == width
        if not is_whole and not _is_predicted(values, filters, reaches_end=columns.stop == width):
            return None
        shades = values if values.ndim == 2 else np.asarray(image.convert("L"))
        if shades.shape[1] == 1:
            found.append(int(shades[0, 0]))
        elif is_whole:
            found.append(shades)
        else:
            whole = np.full((len(shades), width), shades[0, 0])
            whole[:, columns] = shades[:, 1:]
            found.append(whole)
    return found[0], found[1] if has_alpha else 255


def _constant(column: Pixels, filters: Pixels) -> int | None:
    """Return the one value of a channel whose residuals are 0 except in column 0, or None."""
    # Each filter then has one residual in column 0 for that value (section 9.2).
    value = int(column[0])
    expected = np.array([value, value, 0, value - value // 2, 0], np.uint8)[filters]
    expected[0] = value
    is_predicted = value == 0 or (filters[0] in (_SUB, _PAETH) and filters.all())
    return value if is_predicted and np.array_equal(column, expected) else None


def _is_grey(residuals: Pixels) -> bool:
    """Return whether red, green and blue are equal, which they are where their residuals are."""
    if residuals.shape[2] == 4:
        words = residuals.view("<u4")
        differences = words >> 8
        differences ^= words
        return not int(np.bitwise_or.reduce(differences, axis=None)) & 0xFFFF
    green = residuals[:, :, 1]
    return bool((residuals[:, :, 0] == green).all() and (residuals[:, :, 2] == green).all())


def _is_predicted(values: Pixels, filters: Pixels, *, reaches_end: bool) -> bool:
    """Return whether residuals of 0 beside the columns read mean the value of column 0."""
    # They do where all to the left and above has one value; above the first row, and for the
    # filter "none", that is 0.
    background = values[0, 0]
    return bool(
        (not background.any() or (filters[0] in (_SUB, _PAETH) and filters.all()))
        and (values[:, 0] == background).all()
        and (reaches_end or (values[:, -1] == background).all())
    )


def _unfilter(residuals: Pixels, filters: Pixels) -> Image.Image:
    height, width, channels = residuals.shape
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = filters
    rows[:, 1:] = residuals.reshape(height, -1)
    mode = _MODES[channels]
    image = Image.new(mode, (width, height), None)  # every pixel is about to be written
    image.frombytes(_stored(rows.reshape(-1)), "zip", mode, 0)
    return image


def _stored(content: Pixels) -> bytes:
    """Return content (N,) as a zlib stream (RFC 1950) that does not compress it."""
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for start in range(0, len(content), _LONGEST_STORED):
        block = content[start : start + _LONGEST_STORED]
        is_last = start + len(block) == len(content)
        parts += [struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block.data]
    parts.append(zlib_ng.adler32(content).to_bytes(4))
    return b"".join(parts)
