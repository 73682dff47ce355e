"""An encoded picture → Pillow's image of it, at a bounded cost.

A small file can ask a decoder for minutes of work or gigabytes of memory: by many scans (JPEG),
huge tiles (TIFF), a huge canvas, run lengths that Pillow expands in Python (BMP), or metadata that
is copied again and again. So Pillow is given what makes the pixels, and its headers are checked
before it decodes.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Final

from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, TiffImagePlugin

from inkdigits.errors import ImageTooLargeError, UnreadableImageError, UnsupportedImageError

# Segments, chunks, extensions or values of a tag that are read of one file; it has no more.
# A file of the default size limit has at most 1,300 IDAT chunks of the usual 8 KiB.
MAX_PARTS: Final = 16_384

# How the supported formats begin.
_BEGINNING: Final = re.compile(
    rb"(?s)(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<WebP>RIFF.{4}WEBP)|(?P<BMP>BM)"
    rb"|(?P<GIF>GIF8[79]a)|(?P<TIFF>II\*\0|MM\0\*)"
)
_JPEG_MARKER: Final = re.compile(rb"\xff([\x02-\xcf\xda-\xfe])")
_SCAN, _APP1 = 0xDA, 0xE1
# Application data, but for JFIF's (E0) and Adobe's (EE, which tells the colours); and comments.
_JPEG_METADATA: Final = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
_PNG_PIXELS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_GIF_PICTURE, _GIF_EXTENSION, _GIF_CONTROL = 0x2C, 0x21, 0xF9  # of which the last is transparency
# TIFF 6.0: the tags of pixels, and those of YCbCr.
_TIFF_PIXELS: Final = frozenset({*range(256, 340), *range(529, 533)})
# The compressions, as Pillow names those of TIFF and BMP, whose work is bounded by the pixels.
_COMPRESSIONS: Final = frozenset(
    {None, 0, 3, "raw", "packbits", "tiff_ccitt", "group3", "group4"}
    | {"tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"}
)

# What Pillow's decoders raise for bytes that are not a sound picture. Decoders are third-party
# parsers of hostile input, so the list is long; anything else is a defect and is not caught.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, EOFError),
    *(AttributeError, NotImplementedError, struct.error, zlib.error, MemoryError),
)


def decode(content: bytes, max_pixels: int, max_scans: int) -> Image.Image:
    """Return an encoded picture, loaded and upright; what is too expensive is rejected before.

    Args:
        content: the file.
        max_pixels: half of it for WebP and for 32-bit samples, which take twice the memory. The
            tiles or strips of a TIFF count as a whole.
        max_scans: passes of a JPEG over its pixels.

    Raises:
        UnreadableImageError: of none of the formats, or damaged.
        UnsupportedImageError: compressed so that its decoder is not bounded.
        ImageTooLargeError: over a limit.

    >>> decode(b"GIF89a" + bytes([9, 0, 9, 0, 0, 0, 0]) + b";", 100, 1)
    Traceback (most recent call last):
    inkdigits.errors.UnreadableImageError: The GIF is truncated, damaged or of over 16,384 parts.
    """
    found = _BEGINNING.match(content)
    if found is None or found.lastgroup is None:
        raise UnreadableImageError(
            f"These {len(content):,} bytes are not a picture. Send one of "
            f"{', '.join(_BEGINNING.groupindex)}."
        )
    name = found.lastgroup
    try:
        kept, exif = _KEEPERS[name](content) if name in _KEEPERS else (content, b"")
        image = Image.open(io.BytesIO(kept), formats=[name.upper()])
        size = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            size = _with_whole_tiles(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"The picture is far over the limit of {max_pixels:,} pixels. Send a smaller picture."
        ) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"The {name} is truncated, damaged or of over {MAX_PARTS:,} parts."
        ) from error
    takes_twice = name == "WebP" or image.mode in ("I", "F")
    what = f"The {name}{', which takes twice the memory,' if takes_twice else ''}"
    check_pixels(what, *size, max_pixels // 2 if takes_twice else max_pixels)
    if image.info.get("compression") not in _COMPRESSIONS:
        raise UnsupportedImageError(
            f"The {name} has a compression whose decoder is not bounded. "
            "Save it without compression or as PNG."
        )
    scans = kept.count(b"\xff\xda") if name == "JPEG" else 0
    if scans > max_scans:
        raise ImageTooLargeError(
            f"The JPEG has {scans:,} scans; the limit is {max_scans}. Save it as a baseline JPEG."
        )
    load(image)
    orientation = _orientation(image.info.pop("exif", exif))
    if orientation > 1:
        image.getexif()[ExifTags.Base.Orientation] = orientation
        ImageOps.exif_transpose(image, in_place=True)
    return image


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


def _keep_jpeg(content: bytes) -> tuple[bytes, bytes]:
    """Return a file without its metadata, and its EXIF; so do the others."""
    kept, exif, end = [content[:2]], b"", 2
    for _ in range(MAX_PARTS):
        found = _JPEG_MARKER.search(content, end)
        if found is None:
            break
        marker, start, body = found[1][0], found.start(), found.end() + 2
        if marker == _SCAN:
            return b"".join([*kept, content[start:]]), exif
        end = body - 2 + int.from_bytes(content[body - 2 : body])
        if marker not in _JPEG_METADATA:
            kept.append(content[start:end])
        elif marker == _APP1 and content.startswith(b"Exif\0\0", body):
            exif = exif or content[body:end]
    raise ValueError("it has no scan")


def _keep_png(content: bytes) -> tuple[bytes, bytes]:
    kept, exif, end = [content[:8]], b"", 8
    for _ in range(MAX_PARTS):
        start = end
        length, kind = struct.unpack_from(">I4s", content, start)
        end = start + length + 12
        if kind in _PNG_PIXELS:
            kept.append(content[start:end])
        elif kind == b"eXIf":
            exif = exif or content[start + 8 : end - 4]
        if kind == b"IEND" or end >= len(content):
            return b"".join(kept), exif
    raise ValueError(f"it has more than {MAX_PARTS:,} chunks")


def _keep_gif(content: bytes) -> tuple[bytes, bytes]:
    head = end = 13 + (3 << (content[10] & 7) + 1 if content[10] & 0x80 else 0)
    control = b""
    for _ in range(MAX_PARTS):
        start = end
        if content[start] == _GIF_PICTURE:
            return content[:head] + control + content[start:], b""
        if content[start] != _GIF_EXTENSION:
            break
        end = start + 2
        while content[end]:
            end += 1 + content[end]
        end += 1
        if content[start + 1] == _GIF_CONTROL:
            control = content[start:end]
    raise ValueError("it has no picture")


def _keep_tiff(content: bytes) -> tuple[bytes, bytes]:
    order, start, tags = _directory(content)
    kept = [entry for tag, (n, entry) in tags.items() if tag in _TIFF_PIXELS and n <= MAX_PARTS]
    # There is no other directory. Pillow itself turns a TIFF upright.
    directory = struct.pack(order + "H", len(kept)) + b"".join(kept) + bytes(4)
    return content[:start] + directory + content[start + len(directory) :], b""


def _directory(content: bytes) -> tuple[str, int, dict[int, tuple[int, bytes]]]:
    """Return a TIFF's byte order, its first directory's place, and each tag's count and entry."""
    order = "<" if content.startswith(b"II") else ">"
    tags: dict[int, tuple[int, bytes]] = {}
    (start,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, start)
    for place in range(start + 2, start + 2 + 12 * entries, 12):
        tag, _, count = struct.unpack_from(order + "HHI", content, place)
        tags.setdefault(tag, (count, content[place : place + 12]))
    return order, start, tags


def _orientation(exif: bytes) -> int:
    """Return the orientation that EXIF states, 1 to 8, or 0 where it states none."""
    try:
        order, _, tags = _directory(exif.removeprefix(b"Exif\0\0"))
        _, entry = tags.get(ExifTags.Base.Orientation, (0, bytes(12)))
        return int(struct.unpack_from(order + "H", entry, 8)[0])
    except struct.error:
        return 0


def _with_whole_tiles(image: TiffImagePlugin.TiffImageFile) -> tuple[int, int]:
    """Return a TIFF's width and height with whole tiles or strips, which a decoder holds."""
    tags, of = image.tag_v2, ExifTags.Base
    width, height = tags[of.ImageWidth], tags[of.ImageLength]
    strip = min(height, tags.get(of.RowsPerStrip, height))
    across, down = tags.get(of.TileWidth, width), tags.get(of.TileLength, strip)
    columns, rows = -(-width // across), -(-height // down)
    samples, bits = tags.get(of.SamplesPerPixel, 1), max(tags.get(of.BitsPerSample, (1,)))
    if len(image.tile) > columns * rows * samples:
        raise ValueError("it has more strips or tiles than pixels")
    # More than 32 bits a pixel count as more rows.
    return columns * across, rows * down * max(1, -(-samples * bits // 32))


# What keeps of each format the part of a file that makes the pixels.
_KEEPERS: Final = {"JPEG": _keep_jpeg, "PNG": _keep_png, "GIF": _keep_gif, "TIFF": _keep_tiff}
