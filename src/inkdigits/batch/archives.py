"""The pictures in a ZIP or TAR archive, one after another; nothing is unpacked to disk.

An archive may be hostile: the size that a member declares is compared with a limit first. No path
is made of a member's name. ``zipfile`` holds the directory of a ZIP archive, so only the parent
process reads it; workers are told where a member lies.
"""

from __future__ import annotations

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeAlias

from inkdigits.batch.storage import read_range
from inkdigits.errors import (
    DataError,
    ImageError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink.decode import Limits

PICTURE_SUFFIXES: Final = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)

# PKWARE, "APPNOTE.TXT, .ZIP File Format Specification", 6.3, section 4.3.7.
_ZIP_LOCAL: Final = struct.Struct("<4s5H3L2H")
_ENCRYPTED: Final = 0x1
_LARGEST_FILE: Final = 2**48  # in bytes
# A packed member may be this many bytes longer than its contents; deflate needs far fewer.
_PACKING_SLACK: Final = 4096


@dataclass(frozen=True, slots=True)
class Extent:
    """The place of an encoded picture: a member of an archive, or an object in a store."""

    file: Path
    offset: int  # of its ZIP header or else of its bytes
    packed: int  # bytes in the file
    size: int  # bytes of the picture
    crc: int | None = None  # None outside ZIP archives
    deflated: bool = False

    @classmethod
    def of(
        cls, file: Path, size: int, limits: Limits, offset: int = 0
    ) -> Extent | ImageTooLargeError:
        """Return the place of bytes that are a picture as they are; an error for too many."""
        most = limits.max_bytes
        if size > most:
            return ImageTooLargeError(f"the picture has {size:,} bytes; at most {most:,}")
        return cls(file, offset, size, size)

    def read(self) -> bytes:
        """Return the encoded picture.

        Raises:
            UnreadableImageError: missing, truncated, or not what the archive's directory says.
            OSError: the file cannot be read now, which is not the picture's fault.
        """
        try:
            content = read_range(self.file, self._start(), self.packed)
            if self.deflated:
                # One byte more than declared: a member that holds more is noticed, not unpacked.
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        except (FileNotFoundError, zlib.error) as error:
            raise UnreadableImageError(f"the picture cannot be unpacked: {error}") from error
        if len(content) != self.size or self.crc not in (None, zlib.crc32(content)):
            raise UnreadableImageError(
                "the member differs from what the archive's directory says of it"
            )
        return content

    def _start(self) -> int:
        if self.crc is None:
            return self.offset
        sound = 0 <= self.offset < _LARGEST_FILE
        header = read_range(self.file, self.offset, _ZIP_LOCAL.size) if sound else b""
        if len(header) < _ZIP_LOCAL.size or header[:4] != b"PK\x03\x04":
            raise UnreadableImageError("the archive has no member where its directory says")
        *_, name, extra = _ZIP_LOCAL.unpack(header)
        return self.offset + _ZIP_LOCAL.size + int(name + extra)


Member: TypeAlias = "tuple[str, Extent | bytes | ImageError]"


def is_picture_name(name: str) -> bool:
    """Return whether a file's suffix is a picture's; macOS's "._" files are none.

    >>> is_picture_name("folder/seven.PNG"), is_picture_name("folder/._seven.png")
    (True, False)
    """
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and (dot + suffix).lower() in PICTURE_SUFFIXES and stem[:2] != "._"


def zip_members(path: Path, limits: Limits) -> Iterator[Member]:
    """Yield the pictures of a ZIP archive in the order of its directory; skip other members.

    Raises:
        DataError: not a ZIP archive, or its directory is damaged.

    >>> next(zip_members(Path("missing.zip"), Limits()))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: missing.zip cannot be read as a ZIP archive: ...
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    # The last three are what zipfile raises for a damaged directory.
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        raise DataError(f"{path} cannot be read as a ZIP archive: {error}") from error
    for member in members:
        if is_picture_name(member.orig_filename):
            yield member.orig_filename, _zip_place(path, member, limits)


def _zip_place(path: Path, member: zipfile.ZipInfo, limits: Limits) -> Extent | ImageError:
    method, packed, size = member.compress_type, member.compress_size, member.file_size
    if member.flag_bits & _ENCRYPTED:
        return UnsupportedImageError("the member is encrypted")
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return UnsupportedImageError(
            f"the member is packed by ZIP method {method}; supported are stored and deflate"
        )
    whole = Extent.of(path, max(size, packed - _PACKING_SLACK), limits)
    if isinstance(whole, ImageError):
        return whole
    deflated = method == zipfile.ZIP_DEFLATED
    return Extent(path, member.header_offset, packed, size, member.CRC, deflated)


def tar_members(path: Path, limits: Limits) -> Iterator[Member]:
    """Yield the pictures of a TAR archive in its order, as bytes where gzip compresses it.

    What is compressed as a whole can only be read from its start.

    Raises:
        DataError: not a TAR archive, or from some member on it cannot be read.

    >>> next(tar_members(Path("missing.tar"), Limits()))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: missing.tar: the TAR archive cannot be read further: ...
    """
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            compressed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield from _tar_members(path, unpacked if compressed else raw, limits)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: the TAR archive cannot be read further: {error}") from error


def _tar_members(path: Path, file: IO[bytes] | gzip.GzipFile, limits: Limits) -> Iterator[Member]:
    unpacked = file if isinstance(file, gzip.GzipFile) else None
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            # The library keeps every member for random access.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isreg() and is_picture_name(member.name):
                yield member.name, _tar_place(path, member, unpacked, limits)
        # tarfile stops at any block that is not a header; a whole archive ends in zeros.
        file.seek(archive.offset)
        end = file.read(tarfile.BLOCKSIZE)
    if not end or end.strip(b"\0"):
        raise DataError(f"{path}: the TAR archive is truncated or damaged")
    # Reading to the end makes gzip compare its checksum.
    while unpacked is not None and unpacked.read(2**20):
        pass


def _tar_place(
    path: Path, member: tarfile.TarInfo, unpacked: gzip.GzipFile | None, limits: Limits
) -> Extent | bytes | ImageError:
    if member.issparse():
        return UnsupportedImageError("the member is a sparse file")
    place = Extent.of(path, member.size, limits, member.offset_data)
    if unpacked is None or isinstance(place, ImageError):
        return place
    unpacked.seek(member.offset_data)
    content = unpacked.read(member.size)
    if len(content) < member.size:
        raise DataError(f"{path}: the TAR archive ends inside {member.name}")
    return content
