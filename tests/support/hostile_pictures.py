"""Small files that ask a decoder for much time or memory, and files with metadata of every kind."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image
from support.pictures import encoded


def jpeg_of_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan, which is empty, is repeated."""
    content = encoded(Image.new("L", (64, 64)), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    missing = scans - content.count(b"\xff\xda")
    return content[:last] + content[last:-2] * (missing + 1) + content[-2:]


def jpeg_with(segments: bytes, image: Image.Image | None = None) -> bytes:
    """A JPEG with more segments at its beginning."""
    content = encoded(image or Image.new("L", (8, 8)), "JPEG")
    return content[:2] + segments + content[2:]


def exif_of_large_tags(tags: int, size: int) -> bytes:
    """EXIF whose tags all claim the same bytes as their own."""
    place = 4 + 6 + 12 * tags + 4
    entries = (struct.pack("<HHII", 1000 + i, 7, size, place) for i in range(tags))
    return b"II*\0" + struct.pack("<IH", 8, tags) + b"".join(entries) + bytes(4 + size)


def chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def png_with(chunks: bytes, image: Image.Image | None = None) -> bytes:
    """A PNG with more chunks after its header."""
    content = encoded(image or Image.new("L", (8, 8)), "PNG")
    return content[:33] + chunks + content[33:]


def webp_of_canvas(width: int, height: int) -> bytes:
    """A WebP of few bytes whose canvas is large."""
    picture = encoded(Image.new("RGB", (8, 8)), "WEBP")[12:]
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
    frame = bytes(6) + (7).to_bytes(3, "little") * 2 + bytes(4) + picture
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_with(extensions: bytes, place: tuple[int, int] = (0, 0)) -> bytes:
    """A GIF with more extensions before its picture, which is put at a place."""
    content = encoded(Image.new("L", (8, 8)), "GIF")
    start = content.index(b",", 13 + (3 << (content[10] & 7) + 1))
    moved = b"," + struct.pack("<2H", *place) + content[start + 5 :]
    return content[:start] + extensions + moved


def rle_bmp(width: int, height: int) -> bytes:
    """A BMP of run lengths that says only where lines end."""
    body, start = b"\0\0" * height + b"\0\1", 14 + 40 + 4 * 256
    head = struct.pack("<2sIII", b"BM", start + len(body), 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 0, 0)
    return head + info + bytes(4 * 256) + body


def tiff(
    width: int, height: int, tags: Sequence[tuple[int, int, int, int]] = (), body: bytes = b""
) -> bytes:
    """A TIFF of 8-bit grey with these tags besides: number, type, count, value or place."""
    fixed = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 262: (3, 1, 1)}
    merged = [(n, *rest) for n, rest in fixed.items() if n not in {t[0] for t in tags}] + [*tags]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(merged))
    return b"II*\0" + struct.pack("<IH", 8, len(merged)) + entries + bytes(4) + body


def drawing() -> Image.Image:
    """A picture that looks different each way up."""
    levels = np.full((40, 24), 255, np.uint8)
    levels[4:20, 4:8] = 0
    levels[4:8, 4:16] = 90
    return Image.fromarray(levels)
