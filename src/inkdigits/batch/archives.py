"""The pictures in a ZIP or TAR archive, one after another; nothing is unpacked to disk.

An archive may be hostile, so everything that it declares is compared with a limit first, and memory
does not grow with the number of members. That is why the ZIP directory is read here entry by entry
(PKWARE, "APPNOTE.TXT, .ZIP File Format Specification", 6.3, sections 4.3.7 to 4.3.16 and 4.5.3):
``zipfile`` holds all of it, about half a kilobyte per member. No path is made of a member's name.
"""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
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
MAX_TAR_HEADER: Final = 2**20

_ZIP_END = struct.Struct("<4s4H2LH")
_ZIP_END_64_LOCATOR = struct.Struct("<4sLQL")
_ZIP_END_64 = struct.Struct("<4sQ2H2L4Q")
_ZIP_ENTRY = struct.Struct("<4s6H3L5H2L")
_ZIP_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP_LONGEST_COMMENT = 65535
_IN_ZIP_64 = 0xFFFFFFFF
_ENCRYPTED, _UTF_8 = 0x1, 0x800
_STORED, _DEFLATED = 0, 8
# A packed member may be this many bytes longer than its contents; deflate needs far fewer.
_PACKING_SLACK = 4096


@dataclass(frozen=True, slots=True)
class Extent:
    """The place of a member's bytes in an archive's file.

    Attributes:
        offset: of its ZIP header or, in a TAR archive, of its bytes; in bytes from the start.
        packed: length in the archive, in bytes.
        size: length of the picture, in bytes.
        crc: CRC-32 of the picture; None in a TAR archive, which has none.
        deflated: whether it is compressed.
    """

    offset: int
    packed: int
    size: int
    crc: int | None = None
    deflated: bool = False

    def read(self, file: IO[bytes]) -> bytes:
        """Return the encoded picture.

        Args:
            file: the archive, open for reading.

        Raises:
            UnreadableImageError: truncated, or different from what the archive's directory says.
        """
        offset = self.offset
        if self.crc is not None:
            file.seek(offset)
            header = file.read(_ZIP_LOCAL.size)
            if len(header) < _ZIP_LOCAL.size or header[:4] != b"PK\x03\x04":
                raise UnreadableImageError("the archive has no member where its directory says")
            *_, name, extra = _ZIP_LOCAL.unpack(header)
            offset += _ZIP_LOCAL.size + name + extra
        file.seek(offset)
        content = file.read(self.packed)
        if len(content) < self.packed:
            raise UnreadableImageError(
                f"the archive ends after {len(content):,} of the {self.packed:,} bytes"
            )
        if self.deflated:
            try:
                # One byte more than declared: a member that holds more is noticed, not unpacked.
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
            except zlib.error as error:
                raise UnreadableImageError(f"the member cannot be unpacked: {error}") from error
        if len(content) != self.size or self.crc not in (None, zlib.crc32(content)):
            raise UnreadableImageError(
                "the member differs from what the archive's directory says of it"
            )
        return content


Member: TypeAlias = "tuple[str, Extent | bytes | ImageError]"
"""A picture's name in the archive, and its place, its bytes, or why there are none."""


def is_picture_name(name: str) -> bool:
    """Return whether a file's suffix is a picture's; macOS's "._" files are none.

    >>> is_picture_name("folder/seven.PNG"), is_picture_name("folder/._seven.png")
    (True, False)
    """
    base = name.rpartition("/")[2]
    stem, dot, suffix = base.rpartition(".")
    return bool(stem) and (dot + suffix).lower() in PICTURE_SUFFIXES and stem[:2] != "._"


def zip_members(path: Path, limits: Limits) -> Iterator[Member]:
    """Yield the pictures of a ZIP archive in the order of its directory; skip other members.

    Args:
        path: the archive, ZIP64 included, in one file.
        limits: a member over ``max_bytes`` comes as an ImageTooLargeError.

    Raises:
        DataError: not a ZIP archive, or from some entry on its directory cannot be read.

    >>> import tempfile, zipfile
    >>> with tempfile.NamedTemporaryFile() as file, zipfile.ZipFile(file, "w") as archive:
    ...     archive.writestr("a.png", b"png")
    ...     archive.close()
    ...     print(*zip_members(Path(file.name), Limits()))
    ('a.png', Extent(offset=0, packed=3, size=3, crc=2199389072, deflated=False))
    """
    with path.open("rb") as file:
        start, length, shift = _zip_directory(path, file)
        file.seek(start)
        while length > 0:
            head = file.read(_ZIP_ENTRY.size)
            if len(head) < _ZIP_ENTRY.size or head[:4] != b"PK\x01\x02":
                raise DataError(f"{path}: the ZIP archive's directory is damaged")
            _, _, _, flags, method, _, _, *numbers = _ZIP_ENTRY.unpack(head)
            crc, packed, size, name_length, extra_length, comment_length, _, _, _, offset = numbers
            rest = file.read(name_length + extra_length + comment_length)
            length -= len(head) + len(rest)
            if len(rest) < name_length + extra_length + comment_length:
                raise DataError(f"{path}: the ZIP archive's directory is damaged")
            name = rest[:name_length].decode("utf-8" if flags & _UTF_8 else "cp437", "replace")
            if not is_picture_name(name):
                continue
            extra = rest[name_length : name_length + extra_length]
            size, packed, offset = _with_zip_64(extra, size, packed, offset)
            extent = Extent(offset + shift, packed, size, crc, method == _DEFLATED)
            yield name, _zip_member_error(flags, method, extent, limits) or extent


def _zip_member_error(flags: int, method: int, extent: Extent, limits: Limits) -> ImageError | None:
    if flags & _ENCRYPTED:
        return UnsupportedImageError("the member is encrypted")
    if method not in (_STORED, _DEFLATED):
        return UnsupportedImageError(
            f"the member is packed by ZIP method {method}; supported are stored and deflate"
        )
    if max(extent.size, extent.packed - _PACKING_SLACK) > limits.max_bytes:
        return _too_large(max(extent.size, extent.packed), limits)
    return None


def _zip_directory(path: Path, file: IO[bytes]) -> tuple[int, int, int]:
    """Return the directory's start and length, and what to add to all offsets, in bytes."""
    file_size = file.seek(0, os.SEEK_END)
    tail_start = max(0, file_size - _ZIP_END.size - _ZIP_LONGEST_COMMENT)
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _ZIP_END.size:
        raise DataError(f"{path} is not a ZIP archive, or its end is missing")
    _, disk, _, _, _, length, start, _ = _ZIP_END.unpack_from(tail, at)
    end = tail_start + at
    locator_start = end - _ZIP_END_64_LOCATOR.size
    if locator_start >= 0:
        file.seek(locator_start)
        locator = file.read(_ZIP_END_64_LOCATOR.size)
        if locator[:4] == b"PK\x06\x07":
            end = locator_start - _ZIP_END_64.size
            file.seek(max(0, end))
            record = file.read(_ZIP_END_64.size)
            if end < 0 or record[:4] != b"PK\x06\x06":
                raise DataError(f"{path}: the ZIP64 archive's end is damaged")
            *_, length, start = _ZIP_END_64.unpack(record)
    if disk not in (0, 0xFFFF):
        raise DataError(f"{path} is one part of a ZIP archive of several files")
    # A program may precede the archive, which then begins later than its offsets say.
    shift = end - length - start
    if shift < 0:
        raise DataError(f"{path}: the ZIP archive's directory is not where its end says")
    return start + shift, length, shift


def _with_zip_64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Return sizes and offset, with 64-bit values from the entry's extra field."""
    values = [size, packed, offset]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        wide = extra[4 : 4 + length] if kind == 1 else b""
        for i, value in enumerate(values):
            if value == _IN_ZIP_64 and len(wide) >= 8:
                values[i] = int.from_bytes(wide[:8], "little")
                wide = wide[8:]
        extra = extra[4 + length :]
    return values[0], values[1], values[2]


class TarMembers:
    """The pictures of a TAR archive in its order; other members are skipped.

    Iterating gives an Extent for each picture of a plain archive, and its bytes for one that is
    compressed with gzip, which can only be read from the start.

    Args:
        path: the archive.
        limits: a member over ``max_bytes`` comes as an ImageTooLargeError.

    Attributes:
        fraction: how much of the file has been read, 0 to 1.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.fraction = 0.0
        self._path = path
        self._limits = limits

    def __iter__(self) -> Iterator[Member]:
        """Yield the members.

        Raises:
            DataError: not a TAR archive, or from some member on it cannot be read.
        """
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
        reader = _Bounded(unpacked or raw, max(MAX_TAR_HEADER, self._limits.max_bytes))
        with tarfile.open(fileobj=reader, mode="r:") as archive:  # type: ignore[call-overload]
            while (member := archive.next()) is not None:
                # The library keeps every member for random access.
                archive.members.clear()
                self.fraction = raw.tell() / file_size
                if not member.isreg() or not is_picture_name(member.name):
                    continue
                if member.issparse():
                    yield member.name, UnsupportedImageError("the member is a sparse file")
                elif member.size > self._limits.max_bytes:
                    yield member.name, _too_large(member.size, self._limits)
                elif unpacked is None:
                    yield member.name, Extent(member.offset_data, member.size, member.size)
                else:
                    yield member.name, self._content(unpacked, member)
        # tarfile stops at any block that is not a header; a whole archive ends in zeros.
        if reader.last.strip(b"\0") or not reader.last:
            raise DataError(f"{self._path}: the TAR archive is truncated or damaged")
        # Reading to the end makes gzip compare its checksum.
        while unpacked is not None and unpacked.read(2**20):
            pass

    def _content(self, unpacked: gzip.GzipFile, member: tarfile.TarInfo) -> bytes:
        unpacked.seek(member.offset_data)
        content = unpacked.read(member.size)
        if len(content) < member.size:
            raise DataError(f"{self._path}: the TAR archive ends inside {member.name}")
        return content


class _Bounded:
    """A file that rejects long reads: a TAR header may declare a name of gigabytes.

    Attributes:
        last: the result of the last read.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, most: int) -> None:
        self._file = file
        self._most = most
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._most:
            raise DataError(f"a TAR header declares {size:,} bytes; at most {self._most:,}")
        self.last = self._file.read(size)
        return self.last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _too_large(size: int, limits: Limits) -> ImageTooLargeError:
    return ImageTooLargeError(f"the member has {size:,} bytes; at most {limits.max_bytes:,}")
