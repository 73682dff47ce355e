"""The pictures in a ZIP or TAR archive, one after another; nothing is unpacked to disk.

An archive may be hostile, so everything that it declares is compared with a limit first. No path
is made of a member's name. ``zipfile`` holds the directory of a ZIP archive, so only the parent
process reads it; workers are told where a member lies.
"""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeAlias

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

# A longer header of a TAR archive, in bytes, is rejected; no system has such long names.
_MAX_TAR_HEADER: Final = 2**20
# PKWARE, "APPNOTE.TXT, .ZIP File Format Specification", 6.3, section 4.3.7.
_ZIP_LOCAL: Final = struct.Struct("<4s5H3L2H")
_ENCRYPTED: Final = 0x1
# A packed member may be this many bytes longer than its contents; deflate needs far fewer.
_PACKING_SLACK: Final = 4096


@dataclass(frozen=True, slots=True)
class Extent:
    """The place of a member's bytes in an archive."""

    archive: Path
    offset: int  # of its ZIP header or, in a TAR archive, of its bytes
    packed: int  # bytes in the archive
    size: int  # bytes of the picture
    crc: int | None = None  # None in a TAR archive
    deflated: bool = False

    def read(self) -> bytes:
        """Return the encoded picture.

        Raises:
            UnreadableImageError: truncated, or different from what the archive's directory says.
        """
        try:
            content = self._stored()
            if self.deflated:
                # One byte more than declared: a member that holds more is noticed, not unpacked.
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        except (OSError, zlib.error) as error:
            raise UnreadableImageError(f"the member cannot be unpacked: {error}") from error
        if len(content) != self.size or self.crc not in (None, zlib.crc32(content)):
            raise UnreadableImageError(
                "the member differs from what the archive's directory says of it"
            )
        return content

    def _stored(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            if self.crc is not None:
                header = file.read(_ZIP_LOCAL.size)
                if len(header) < _ZIP_LOCAL.size or header[:4] != b"PK\x03\x04":
                    raise UnreadableImageError("the archive has no member where its directory says")
                file.seek(sum(_ZIP_LOCAL.unpack(header)[-2:]), os.SEEK_CUR)
            return file.read(self.packed)


Member: TypeAlias = "tuple[str, Extent | bytes | ImageError]"
"""A picture's name in the archive, and its place, its bytes, or why there are none."""


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
        with zipfile.ZipFile(path) as archive:
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
    if max(size, packed - _PACKING_SLACK) > limits.max_bytes:
        return _too_large(max(size, packed), limits)
    deflated = method == zipfile.ZIP_DEFLATED
    return Extent(path, member.header_offset, packed, size, member.CRC, deflated)


class TarMembers:
    """The pictures of a TAR archive in its order; other members are skipped.

    Iterating gives an Extent for each picture of a plain archive, and its bytes for one that is
    compressed with gzip, which can only be read from the start. It raises a DataError for what is
    not a TAR archive, or where it cannot be read further.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.fraction = 0.0  # how much of the file has been read, 0 to 1
        self._path = path
        self._limits = limits

    def __iter__(self) -> Iterator[Member]:
        try:
            with self._path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
                compressed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                yield from self._members(raw, unpacked if compressed else None)
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
            raise DataError(
                f"{self._path}: the TAR archive cannot be read further: {error}"
            ) from error

    def _members(self, raw: IO[bytes], unpacked: gzip.GzipFile | None) -> Iterator[Member]:
        file_size = max(1, os.fstat(raw.fileno()).st_size)
        reader = _Bounded(unpacked or raw, max(_MAX_TAR_HEADER, self._limits.max_bytes))
        with tarfile.open(fileobj=reader, mode="r:") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                # The library keeps every member for random access.
                archive.members.clear()
                self.fraction = raw.tell() / file_size
                if member.isreg() and is_picture_name(member.name):
                    yield member.name, self._place(member, unpacked)
        # tarfile stops at any block that is not a header; a whole archive ends in zeros.
        if reader.last.strip(b"\0") or not reader.last:
            raise DataError(f"{self._path}: the TAR archive is truncated or damaged")
        # Reading to the end makes gzip compare its checksum.
        while unpacked is not None and unpacked.read(2**20):
            pass

    def _place(
        self, member: tarfile.TarInfo, unpacked: gzip.GzipFile | None
    ) -> Extent | bytes | ImageError:
        if member.issparse():
            return UnsupportedImageError("the member is a sparse file")
        if member.size > self._limits.max_bytes:
            return _too_large(member.size, self._limits)
        if unpacked is None:
            return Extent(self._path, member.offset_data, member.size, member.size)
        unpacked.seek(member.offset_data)
        content = unpacked.read(member.size)
        if len(content) < member.size:
            raise DataError(f"{self._path}: the TAR archive ends inside {member.name}")
        return content


class _Bounded:
    """A file that rejects long reads: a TAR header may declare a name of gigabytes."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self._file = file
        self._most = most
        self.last = b""  # the result of the last read
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._most:
            raise DataError(f"a TAR header declares {size:,} bytes; at most {self._most:,}")
        self.last = self._file.read(size)
        return self.last


def _too_large(size: int, limits: Limits) -> ImageTooLargeError:
    return ImageTooLargeError(f"the member has {size:,} bytes; at most {limits.max_bytes:,}")
