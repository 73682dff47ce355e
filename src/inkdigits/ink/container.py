"""Look ahead in a picture's file: what decoding it costs, which way up it is, and no metadata.

A small file can ask a decoder for minutes of work or gigabytes of memory: by many scans (JPEG),
huge tiles (TIFF), a huge canvas (WebP, GIF), run lengths that Pillow expands in Python (BMP), or
metadata that is copied again and again. This module reads the headers and decodes no pixels.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

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

_MAX_TEXT_BYTES: Final = 1024 * 1024
_JPEG_MARKER: Final = re.compile(rb"\xff([\x01-\xfe])")
# Start of scan; application data but for JFIF's (E0) and Adobe's (EE, which tells the colours).
_SOS: Final = 0xDA
_JPEG_METADATA: Final = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
_JPEG_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_PNG_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_XMP_ORIENTATION: Final = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')
# TIFF 6.0: bytes of a value of each type; the compressions whose work is bounded by the pixels.
_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_TIFF_WHOLE_NUMBERS: Final = {1: "B", 3: "H", 4: "I"}
_TIFF_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946})
_TIFF_CHECKED: Final = (256, 257, 258, 259, 277, 278, 322, 323)
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _TILE_WIDTH, _TILE_HEIGHT = _TIFF_CHECKED
_ORIENTATION: Final = 274
_TIFF_OFFSETS: Final = (273, 324)
_WHOLE: Final = 0xFFFFFFFF  # rows per strip where there is one strip


class Container(NamedTuple):
    """A file of a picture's pixels, without metadata, and EXIF's orientation: 1 is upright.

    A TIFF's orientation stays in its content.
    """

    format: str
    content: bytes
    orientation: int = 1


def look_ahead(content: bytes, max_pixels: int, max_scans: int) -> Container:
    """Read a file's headers and reject what is too expensive to decode.

    Args:
        content: an encoded picture.
        max_pixels: of a WebP half, of all tiles of a TIFF together twice as many.
        max_scans: passes of a JPEG over its pixels.

    Raises:
        UnreadableImageError: of none of the formats, or damaged.
        UnsupportedImageError: a kind of a format whose decoder is not bounded.
        ImageTooLargeError: over a limit.

    >>> look_ahead(b"GIF89a" + bytes([9, 0, 9, 0, 0, 0, 0]) + b"!", 100, 1)
    Traceback (most recent call last):
    inkdigits.errors.UnreadableImageError: The GIF is truncated or damaged.
    """
    for (start, end), (name, read) in _READERS.items():
        if content.startswith(start) and content[8:12].startswith(end):
            try:
                return read(content, max_pixels, max_scans)
            except (IndexError, struct.error) as error:
                raise UnreadableImageError(f"The {name} is truncated or damaged.") from error
    raise UnreadableImageError(
        f"These {len(content):,} bytes are not a picture. Send one of {', '.join(FORMATS)}."
    )


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


def _too_many_blocks(name: str) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"The {name} has more than {MAX_BLOCKS:,} parts. Save it again without metadata."
    )


def _read_jpeg(content: bytes, _max_pixels: int, max_scans: int) -> Container:
    kept = [content[:2]]
    position, orientation, xmp_orientation, has_exif = 2, 0, 0, False
    for _ in range(MAX_BLOCKS):
        found = _JPEG_MARKER.search(content, position)
        if found is None:
            raise UnreadableImageError("The JPEG is truncated or damaged: it has no scan.")
        marker, start = found[1][0], found.start()
        if marker == _SOS:
            break
        position = found.end()
        if marker in _JPEG_STANDALONE:
            continue
        position += int.from_bytes(content[position : position + 2])
        if marker not in _JPEG_METADATA:
            kept.append(content[start:position])
        elif marker == 0xE1 and not has_exif and content.startswith(b"Exif\0\0", start + 4):
            has_exif = True
            orientation = _exif_orientation(content[start + 10 : position])
        elif marker == 0xE1:
            xmp_orientation = xmp_orientation or _xmp_orientation(content[start + 4 : position])
    else:
        raise _too_many_blocks("JPEG")
    scans = content.count(b"\xff\xda", start)
    if scans > max_scans:
        raise ImageTooLargeError(
            f"The JPEG has {scans:,} scans; the limit is {max_scans}. Save it as a baseline JPEG."
        )
    kept.append(content[start:])
    return Container("JPEG", b"".join(kept), orientation or xmp_orientation or 1)


def _read_png(content: bytes, _max_pixels: int, _max_scans: int) -> Container:
    kept = [content[:8]]
    position, orientation, xmp_orientation = 8, 0, 0
    for _ in range(MAX_BLOCKS):
        length, kind = struct.unpack_from(">I4s", content, position)
        body, start = position + 8, position
        position = body + length + 4
        if kind in _PNG_PIXELS:
            kept.append(content[start:position])
        elif kind == b"eXIf":
            orientation = orientation or _exif_orientation(content[body : body + length])
        elif kind in {b"iTXt", b"tEXt", b"zTXt"}:
            text = content[body : body + min(length, _MAX_TEXT_BYTES)]
            if text.startswith(b"XML:com.adobe.xmp\0\0"):
                xmp_orientation = _xmp_orientation(text)
            elif text.startswith(b"Raw profile type exif\0"):
                orientation = orientation or _raw_profile_orientation(text, kind)
        if kind == b"IEND" or position >= len(content):
            break
    else:
        raise _too_many_blocks("PNG")
    return Container("PNG", b"".join(kept), orientation or xmp_orientation or 1)


def _raw_profile_orientation(text: bytes, kind: bytes) -> int:
    """Return the orientation in ImageMagick's text for EXIF: a count, then hexadecimal digits."""
    profile = text.partition(b"\0")[2]
    try:
        if kind == b"zTXt":
            profile = zlib.decompressobj().decompress(profile[1:], _MAX_TEXT_BYTES)
        data = bytes.fromhex(b"".join(profile.split(b"\n")[3:]).decode("ascii"))
    except (zlib.error, ValueError):
        return 0
    return _exif_orientation(data.removeprefix(b"Exif\0\0"))


def _read_webp(content: bytes, max_pixels: int, _max_scans: int) -> Container:
    position, orientation, xmp_orientation = 12, 0, 0
    for number in range(MAX_BLOCKS):
        if position + 8 > len(content):
            break
        kind, length = struct.unpack_from("<4sI", content, position)
        body = position + 8
        if number == 0:
            # The decoder makes its canvas before it says how large that is. It holds two of them
            # and two copies of the pixels, twice as many bytes as for any other format.
            check_pixels("The WebP", *_webp_size(content, kind, body), max_pixels // 2)
        if kind == b"EXIF":
            data = content[body : body + length]
            orientation = _exif_orientation(data.removeprefix(b"Exif\0\0"))
        elif kind == b"XMP ":
            xmp_orientation = _xmp_orientation(content[body : body + length])
        position = body + length + length % 2
    else:
        raise _too_many_blocks("WebP")
    return Container("WEBP", content, orientation or xmp_orientation or 1)


def _webp_size(content: bytes, kind: bytes, body: int) -> tuple[int, int]:
    if kind == b"VP8X":
        size = content[body + 4 : body + 10]
        return int.from_bytes(size[:3], "little") + 1, int.from_bytes(size[3:], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, body + 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, body + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise UnreadableImageError("The WebP is truncated or damaged: it begins with no picture.")


def _read_gif(content: bytes, max_pixels: int, _max_scans: int) -> Container:
    position = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    head, control = content[:position], b""
    blocks = iter(range(MAX_BLOCKS))  # of all extensions together
    for _ in blocks:
        if content[position] == 0x2C:
            left, top, width, height = struct.unpack_from("<4H", content, position + 1)
            canvas = struct.unpack_from("<2H", content, 6)
            size = max(canvas[0], left + width), max(canvas[1], top + height)
            check_pixels("The GIF", *size, max_pixels)
            return Container("GIF", head + control + content[position:])
        if content[position] != 0x21:
            raise UnreadableImageError("The GIF is truncated or damaged: it has no picture.")
        start, position = position, position + 2
        for _ in blocks:
            position += 1 + content[position]
            if not content[position - 1]:
                break
        if content[start + 1] == 0xF9:  # the graphic control, which names the transparent colour
            control = content[start:position]
    raise _too_many_blocks("GIF")


def _read_bmp(content: bytes, _max_pixels: int, _max_scans: int) -> Container:
    is_old = int.from_bytes(content[14:18], "little") < 40  # OS/2's header says no compression
    if not is_old and int.from_bytes(content[30:34], "little") in {1, 2}:
        raise UnsupportedImageError(
            "The BMP is compressed by run lengths (RLE), which is slow to decode. "
            "Save it without compression or as PNG."
        )
    return Container("BMP", content)


def _read_tiff(content: bytes, max_pixels: int, _max_scans: int) -> Container:
    tags: dict[int, _Tag] = {}
    for tag in _tiff_tags(content):
        if tag.number in tags or (tag.number in _TIFF_CHECKED and not tag.value):
            raise UnreadableImageError(f"The TIFF is damaged: its tag {tag.number} is invalid.")
        tags[tag.number] = tag
    if sum(tag.size for tag in tags.values()) > len(content):
        raise UnreadableImageError("The TIFF is truncated or damaged: its tags exceed the file.")

    def value(number: int, default: int) -> int:
        return tags[number].value if number in tags else default

    if value(_COMPRESSION, 1) not in _TIFF_COMPRESSIONS:
        raise UnsupportedImageError(
            f"The TIFF has compression {value(_COMPRESSION, 1)}, whose decoder is not bounded. "
            "Save it with LZW or Deflate compression, or as PNG."
        )
    width, height = value(_WIDTH, 0), value(_HEIGHT, 0)
    check_pixels("The TIFF", width, height, max_pixels)
    # A decoder holds whole tiles or strips, and the last ones reach beyond the picture.
    across, down = value(_TILE_WIDTH, width), value(_TILE_HEIGHT, value(_ROWS, _WHOLE))
    if down == _WHOLE:
        down = height
    columns, rows = -(-width // across), -(-height // down)
    samples = value(_SAMPLES, 1)
    tiles = columns * rows * samples
    if max((tags[n].n_values for n in _TIFF_OFFSETS if n in tags), default=0) > tiles:
        raise UnreadableImageError("The TIFF is damaged: it has more strips or tiles than rows.")
    if tiles > MAX_BLOCKS:
        raise _too_many_blocks("TIFF")
    # A tile has at most as many bytes as the largest picture in 8-bit RGBA, all have twice that.
    down *= max(1, -(-samples * value(_BITS, 1) // 32))
    check_pixels("The TIFF's tile or strip", across, down, max_pixels)
    check_pixels("The TIFF, with whole tiles,", columns * across, rows * down, 2 * max_pixels)
    return Container("TIFF", content)


class _Tag(NamedTuple):
    number: int
    n_values: int
    size: int  # bytes of its values beyond the directory
    value: int  # the first one; 0 where it is no whole number


def _tiff_tags(content: bytes) -> Iterator[_Tag]:
    """Yield the tags of a TIFF's first directory."""
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
        yield _Tag(number, count, size if size > 4 else 0, value)


def _exif_orientation(exif: bytes) -> int:
    """Return the orientation that EXIF states, 1 to 8, or 0 where it states none."""
    try:
        found = next((tag.value for tag in _tiff_tags(exif) if tag.number == _ORIENTATION), 0)
    except (struct.error, ImageError):
        return 0
    return found if found <= 8 else 0


def _xmp_orientation(xmp: bytes) -> int:
    found = _XMP_ORIENTATION.search(xmp)
    return 0 if found is None else int(found[1])


# How a file begins, and what stands at byte 8 → its format's name, and what reads its headers.
_READERS: Final[dict[tuple[bytes, bytes], tuple[str, Callable[[bytes, int, int], Container]]]] = {
    (b"\xff\xd8\xff", b""): ("JPEG", _read_jpeg),
    (b"\x89PNG\r\n\x1a\n", b""): ("PNG", _read_png),
    (b"RIFF", b"WEBP"): ("WebP", _read_webp),
    (b"GIF87a", b""): ("GIF", _read_gif),
    (b"GIF89a", b""): ("GIF", _read_gif),
    (b"BM", b""): ("BMP", _read_bmp),
    (b"II", b""): ("TIFF", _read_tiff),
    (b"MM", b""): ("TIFF", _read_tiff),
}
