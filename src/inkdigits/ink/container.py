"""An encoded picture → Pillow's image of it, at a bounded cost.

A small file can ask a decoder for minutes of work or gigabytes of memory: by many scans (JPEG),
huge tiles (TIFF), a huge canvas (WebP, GIF), run lengths that Pillow expands in Python (BMP), or
metadata that is copied again and again. So the headers are read before Pillow reads the file.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from PIL import Image, JpegImagePlugin

from inkdigits.errors import (
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)

# The supported formats, as Pillow names them.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Segments, chunks, extensions or tags of one file that are looked at; more are rejected.
# A file of the default size limit has at most 1,300 IDAT chunks of the usual 8 KiB.
MAX_BLOCKS: Final = 16_384

_Part: TypeAlias = tuple[int | bytes, int, int, int]
"""What a part of a file is; where it, its content and the next one begin."""

_JPEG_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xda-\xfe])")
_SCAN, _APP1 = 0xDA, 0xE1
# Application data, but for JFIF's (E0) and Adobe's (EE, which tells the colours); and comments.
_JPEG_METADATA: Final = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
_PNG_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_GIF_PICTURE, _GIF_CONTROL = 0x2C, 0xF9  # the control names the transparent colour
# TIFF 6.0: bytes of a value of each type; the compressions whose work is bounded by the pixels.
_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TIFF_WHOLE_NUMBERS: Final = {1: "B", 3: "H", 4: "I"}
_TIFF_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946})
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = (
    *(256, 257, 258, 259, 277, 278),
    *(322, 323),
)
_OFFSETS, _TILE_OFFSETS, _ORIENTATION = 273, 324, 274
_WHOLE: Final = 0xFFFFFFFF  # rows per strip where there is one strip

# How a picture is turned upright whose EXIF has this orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise for bytes that are not a sound picture. Decoders are third-party
# parsers of hostile input, so the list is long; anything else is a defect and is not caught.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError),
    *(AttributeError, NotImplementedError, struct.error, zlib.error, MemoryError),
)


def decode(content: bytes, max_pixels: int, max_scans: int) -> Image.Image:
    """Return an encoded picture, loaded and upright; what is too expensive is rejected before.

    Args:
        content: the file.
        max_pixels: half of it for WebP and for 32-bit samples, which take twice the memory; twice
            as many of all tiles of a TIFF together.
        max_scans: passes of a JPEG over its pixels.

    Raises:
        UnreadableImageError: of none of the formats, or damaged.
        UnsupportedImageError: a kind of a format whose decoder is not bounded.
        ImageTooLargeError: over a limit.

    >>> decode(b"GIF89a" + bytes([9, 0, 9, 0, 0, 0, 0]) + b"!", 100, 1)
    Traceback (most recent call last):
    inkdigits.errors.UnreadableImageError: The GIF is truncated or damaged.
    """
    name, look_ahead = _format_of(content)
    try:
        content, orientation = look_ahead(content, max_pixels, max_scans)
    except (IndexError, struct.error) as error:
        raise UnreadableImageError(f"The {name} is truncated or damaged.") from error
    try:
        image = Image.open(io.BytesIO(content), formats=[name.upper()])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"The picture is far over the limit of {max_pixels:,} pixels. Send a smaller picture."
        ) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(f"The {name} is truncated or damaged.") from error
    is_wide = image.mode in ("I", "F")
    what = "The picture, whose 32-bit samples take twice the memory," if is_wide else "The picture"
    check_pixels(what, *image.size, max_pixels // 2 if is_wide else max_pixels)
    if image.tile and image.tile[0].codec_name == "bmp_rle":
        raise UnsupportedImageError(
            "The BMP is compressed by run lengths (RLE), which is slow to decode. "
            "Save it without compression or as PNG."
        )
    load(image)
    if name == "WebP":
        orientation = _exif_orientation(image.info.get("exif", b""))
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def load(image: Image.Image) -> None:
    """Decode the pixels of an image that Pillow has opened; UnreadableImageError if it cannot.

    >>> load(Image.new("L", (2, 2)))
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # A JPEG holds its luminance apart, so its colours need not be decoded.
        image.draft("L", image.size)
    what = image.format or "picture"
    try:
        image.load()
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(f"The {what} is truncated or damaged: {error}") from error
    if image.mode in ("P", "PA") and image.palette is None:
        raise UnreadableImageError(f"The {what} is damaged: it has no palette.")


def check_pixels(what: str, width: int, height: int, max_pixels: int) -> None:
    """Reject a picture of no pixels, or of too many; ``what`` names it in the message.

    >>> check_pixels("The picture", 28, 28, 784)
    """
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{what} has {width} x {height} = {width * height:,} pixels; the limit is "
            f"{max_pixels:,}. Send a smaller picture or raise INKDIGITS_MAX_PIXELS."
        )
    if not width * height:
        raise UnreadableImageError(f"{what} has no pixels: {width} x {height}.")


def _format_of(content: bytes) -> tuple[str, _LookAhead]:
    for (start, end), found in _READERS.items():
        if content.startswith(start) and content[8:12].startswith(end):
            return found
    raise UnreadableImageError(
        f"These {len(content):,} bytes are not a picture. Send one of {', '.join(FORMATS)}."
    )


def _counted(name: str, parts: Iterator[_Part]) -> Iterator[_Part]:
    for number, part in enumerate(parts):
        if number == MAX_BLOCKS:
            raise UnsupportedImageError(
                f"The {name} has more than {MAX_BLOCKS:,} parts. Save it again without metadata."
            )
        yield part


def _read_jpeg(content: bytes, _max_pixels: int, max_scans: int) -> tuple[bytes, int]:
    kept, orientation, start = [content[:2]], 0, 2
    for marker, start, body, end in _counted("JPEG", _jpeg_segments(content)):
        if marker not in _JPEG_METADATA:
            kept.append(content[start:end])
        elif marker == _APP1 and content.startswith(b"Exif\0\0", body):
            orientation = orientation or _exif_orientation(content[body:end])
    scans = content.count(b"\xff\xda", start)
    if scans > max_scans:
        raise ImageTooLargeError(
            f"The JPEG has {scans:,} scans; the limit is {max_scans}. Save it as a baseline JPEG."
        )
    return b"".join(kept), orientation


def _jpeg_segments(content: bytes) -> Iterator[_Part]:
    """Yield the segments before the first scan, and as the last one all that follows."""
    end, marker = 2, 0
    while marker != _SCAN:
        found = _JPEG_MARKER.search(content, end)
        if found is None:
            raise UnreadableImageError("The JPEG is truncated or damaged: it has no scan.")
        marker, body = found[1][0], found.end() + 2
        length = int.from_bytes(content[body - 2 : body])
        end = len(content) if marker == _SCAN else body - 2 + length
        yield marker, found.start(), body, end


def _read_png(content: bytes, _max_pixels: int, _max_scans: int) -> tuple[bytes, int]:
    kept, orientation = [content[:8]], 0
    for kind, start, body, end in _counted("PNG", _png_chunks(content)):
        if kind in _PNG_PIXELS:
            kept.append(content[start:end])
        elif kind == b"eXIf":
            orientation = orientation or _exif_orientation(content[body : end - 4])
    return b"".join(kept), orientation


def _png_chunks(content: bytes) -> Iterator[_Part]:
    start, kind = 8, b""
    while kind != b"IEND" and start < len(content):
        length, kind = struct.unpack_from(">I4s", content, start)
        yield kind, start, start + 8, start + length + 12
        start += length + 12


def _read_webp(content: bytes, max_pixels: int, _max_scans: int) -> tuple[bytes, int]:
    # The decoder makes its canvas before it says how large that is. It holds two of them and two
    # copies of the pixels, twice as many bytes as for any other format.
    check_pixels("The WebP", *_webp_size(content), max_pixels // 2)
    return content, 0


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        size = content[24:30]
        return int.from_bytes(size[:3], "little") + 1, int.from_bytes(size[3:], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise UnreadableImageError("The WebP is truncated or damaged: it begins with no picture.")


def _read_gif(content: bytes, _max_pixels: int, _max_scans: int) -> tuple[bytes, int]:
    head = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    kept = {_GIF_CONTROL: b""}
    for kind, start, _, end in _counted("GIF", _gif_blocks(content, head)):
        if kind in (_GIF_CONTROL, _GIF_PICTURE):
            kept[kind] = content[start:end]
    return content[:head] + kept[_GIF_CONTROL] + kept[_GIF_PICTURE], 0


def _gif_blocks(content: bytes, start: int) -> Iterator[_Part]:
    """Yield the extensions, or blocks of them, before the picture, and all that follows it."""
    while content[start] == 0x21:
        kind, end, length = content[start + 1], start + 2, -1
        while length:
            length = content[end]
            end += 1 + length
            yield kind, start, end, end + 1
        start = end
    if content[start] != _GIF_PICTURE:
        raise UnreadableImageError("The GIF is truncated or damaged: it has no picture.")
    yield _GIF_PICTURE, start, start, len(content)


def _read_bmp(content: bytes, _max_pixels: int, _max_scans: int) -> tuple[bytes, int]:
    return content, 0


def _read_tiff(content: bytes, max_pixels: int, _max_scans: int) -> tuple[bytes, int]:
    counts, values = {}, {_COMPRESSION: 1, _SAMPLES: 1, _BITS: 1, _ROWS: _WHOLE}
    left = len(content)
    for number, count, size, value in _tiff_tags(content):
        left -= size
        if number in counts or left < 0:
            raise UnreadableImageError(f"The TIFF is damaged: its tag {number} is invalid.")
        counts[number], values[number] = count, value
    if values[_COMPRESSION] not in _TIFF_COMPRESSIONS:
        raise UnsupportedImageError(
            f"The TIFF has compression {values[_COMPRESSION]}, whose decoder is not bounded. "
            "Save it with LZW or Deflate compression, or as PNG."
        )
    width, height = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    check_pixels("The TIFF", width, height, max_pixels)
    # A decoder holds whole tiles or strips, and the last ones reach beyond the picture.
    across, down = values.get(_TILE_WIDTH, width), values.get(_TILE_HEIGHT, values[_ROWS])
    down = height if down == _WHOLE else down
    samples, bits = values[_SAMPLES], values[_BITS]
    if not (across and down and samples and bits):
        raise UnreadableImageError("The TIFF is damaged: it has strips or tiles of no pixels.")
    columns, rows = -(-width // across), -(-height // down)
    tiles = columns * rows * samples
    if max(counts.get(_OFFSETS, 0), counts.get(_TILE_OFFSETS, 0)) > tiles:
        raise UnreadableImageError("The TIFF is damaged: it has more strips or tiles than rows.")
    if tiles > MAX_BLOCKS:
        raise UnsupportedImageError(f"The TIFF has more than {MAX_BLOCKS:,} strips or tiles.")
    # A tile has at most as many bytes as the largest picture in 8-bit RGBA, all have twice that.
    down *= max(1, -(-samples * bits // 32))
    check_pixels("The TIFF's tile or strip", across, down, max_pixels)
    check_pixels("The TIFF, with whole tiles,", columns * across, rows * down, 2 * max_pixels)
    return content, 0  # Pillow turns it upright.


def _tiff_tags(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield the tags of a TIFF's first directory.

    Of each its number, how many values it has, their bytes beyond the directory, and the first
    value, which is 0 where it is no whole number.
    """
    order = "<" if content.startswith(b"II") else ">"
    version, start = struct.unpack_from(order + "HI", content, 2)
    if version == 43:
        raise UnsupportedImageError("The TIFF is a BigTIFF. Save it as an ordinary TIFF or PNG.")
    if version != 42:
        raise UnreadableImageError("These bytes begin like a TIFF and are none.")
    (entries,) = struct.unpack_from(order + "H", content, start)
    for position in range(start + 2, start + 2 + 12 * min(entries, MAX_BLOCKS), 12):
        number, kind, count = struct.unpack_from(order + "HHI", content, position)
        size = _TIFF_SIZES.get(kind, 0) * count
        place = position + 8
        if size > 4:
            (place,) = struct.unpack_from(order + "I", content, place)
        value = 0
        if kind in _TIFF_WHOLE_NUMBERS and count:
            (value,) = struct.unpack_from(order + _TIFF_WHOLE_NUMBERS[kind], content, place)
        yield number, count, size if size > 4 else 0, value


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation that EXIF states, 1 to 8, or 0 where it states none."""
    try:
        tags = _tiff_tags(exif.removeprefix(b"Exif\0\0"))
        return next((value for number, _, _, value in tags if number == _ORIENTATION), 0)
    except (struct.error, ImageError):
        return 0


_LookAhead: TypeAlias = Callable[[bytes, int, int], tuple[bytes, int]]
"""A file, pixels and scans → what Pillow is given of it, and the orientation that EXIF states."""

# How a file begins, and what stands at byte 8 → its format's name, and what reads its headers.
_READERS: Final[dict[tuple[bytes, bytes], tuple[str, _LookAhead]]] = {
    (b"\xff\xd8\xff", b""): ("JPEG", _read_jpeg),
    (b"\x89PNG\r\n\x1a\n", b""): ("PNG", _read_png),
    (b"RIFF", b"WEBP"): ("WebP", _read_webp),
    (b"GIF87a", b""): ("GIF", _read_gif),
    (b"GIF89a", b""): ("GIF", _read_gif),
    (b"BM", b""): ("BMP", _read_bmp),
    (b"II", b""): ("TIFF", _read_tiff),
    (b"MM", b""): ("TIFF", _read_tiff),
}
