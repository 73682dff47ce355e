"""Where many pictures come from: folders, archives, tables and arrays, cut into shards.

The same source gives the same shards each time, so a run can be resumed. A file may be hostile:
what it declares is compared with a limit before it is read, and nothing is unpacked to disk.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import numpy as np

from inkdigits.batch.shards import Extent, Place, Shard, grouped
from inkdigits.batch.storage import as_path, filesystem, open_file
from inkdigits.errors import (
    DataError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink.decode import DEFAULT_LIMITS
from inkdigits.log.tables import read_binary

SHARD_PICTURES: Final = 512
# A shard ends earlier where its pictures have this many bytes, as far as that is known unread.
SHARD_BYTES: Final = 16 * 2**20

PICTURE_SUFFIXES: Final = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
IDX_NAME: Final = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$")

# So many bytes more a packed member may have than its contents; deflate needs far fewer.
_PACKING_SLACK: Final = 4096
# A long name of a TAR member, or its PAX records, have at most these bytes.
_TAR_HEADER: Final = 2**17
_MOST: Final = DEFAULT_LIMITS.max_bytes
# What the libraries raise for a damaged file. NumPy parses a header as Python literals.
_DAMAGED: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, NotImplementedError),
    *(OSError, EOFError, ValueError, KeyError, TypeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)
_NPY_HEADERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

Entry: TypeAlias = "tuple[str, Place, int]"
"""The name of a picture, where it is, and its bytes where they are held or read for a worker."""


@dataclass(frozen=True, slots=True)
class Source:
    """Something with pictures in it."""

    name: str
    entries: Callable[[], Iterable[Entry]]
    identity: Sequence[str | int]  # as JSON; tells whether it is the same as in an earlier run
    expected: int | None  # its pictures, where that is known; for the time left

    def shards(self) -> Iterator[Shard]:
        """Yield the pictures in shards."""
        for group in grouped(self._all(), SHARD_PICTURES, SHARD_BYTES, lambda entry: entry[2]):
            yield Shard([name for name, *_ in group], [place for _, place, _ in group])

    def _all(self) -> Iterator[Entry]:
        """Yield the entries; one more says why the source ends early or has no pictures."""
        number = 0
        try:
            for number, entry in enumerate(self.entries(), 1):  # noqa: B007
                yield entry
        except (DataError, OSError) as error:
            yield self.name, UnreadableImageError(str(error)), 0
            return
        if not number:
            suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
            why = f"{self.name} holds no pictures ({suffixes})"
            yield self.name, UnreadableImageError(why), 0


def open_sources(paths: Sequence[Path]) -> list[Source]:
    """Return the sources of some paths, in their order; the name of a path says what kind it is.

    A folder stands for the pictures in it, at any depth, sorted. ``.zip``, ``.tar``, ``.tar.gz``
    and ``.tgz`` are archives, ``.npy`` is a NumPy array, names that end like MNIST's own
    (``-idx3-ubyte``, also ``.idx``), with ``.gz`` or without, are IDX, and ``.parquet`` is a table
    with encoded pictures in its column ``image``. Any other is a picture, and pictures that follow
    each other are one source. A DataError says that a file is not what its name says, or of an
    unsupported shape or type.

    >>> [source.expected for source in open_sources([Path("a.png"), Path("b.png")])]
    [2]
    """
    sources: list[Source] = []
    for is_file, some in groupby(paths, lambda path: not (path.is_dir() or _reader(path))):
        if is_file:
            # An object's size is not known here, so it counts as one of the largest.
            entries = [(str(one), one, _MOST if filesystem(one) else 0) for one in some]
            names = [name for name, *_ in entries]
            sources.append(Source(names[0], entries.copy, names, len(names)))
        else:
            sources += [_folder(path) if path.is_dir() else _container(path) for path in some]
    return sources


def holds_many(path: Path) -> bool:
    """Return whether a path is that of an archive, a table or an array.

    >>> holds_many(Path("a.zip")), holds_many(Path("a.png"))
    (True, False)
    """
    return not path.is_dir() and _reader(path) is not None


def _reader(path: Path) -> Callable[[Path, Any], Iterator[Entry]] | None:
    """Return what reads the pictures of a file with many, by its name."""
    name = path.name.lower()
    if IDX_NAME.search(name) or name.endswith(".npy"):
        return _array
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar
    if name.endswith(".zip"):
        return _zip
    return _parquet if name.endswith(".parquet") else None


def _folder(path: Any) -> Source:
    entries: Callable[[], Iterable[Entry]] = partial(walk, path)
    if filesystem(path) is not None:
        listed = sorted(path.fs.find(path.path, detail=True).items())
        names = ((path.fs.unstrip_protocol(key), about["size"]) for key, about in listed)
        found = [_sized(name, as_path(name), size) for name, size in names if _is_picture(name)]
        entries = partial(list, found)
    return Source(str(path), entries, [str(path)], sum(1 for _ in entries()))


def walk(folder: Path) -> Iterator[Entry]:
    """Yield the pictures in a folder in the order in which paths sort.

    >>> [str(error) for _, error, _ in walk(Path("missing"))]
    ['the folder cannot be read: No such file or directory']
    """
    ahead = [(str(folder), True)]
    while ahead:
        name, is_folder = ahead.pop()
        if not is_folder:
            yield name, Path(name), 0
            continue
        try:
            ahead += sorted(_listed(name), reverse=True)
        except OSError as error:
            why = f"the folder cannot be read: {error.strerror}"
            yield name, UnreadableImageError(why), 0


def _listed(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the pictures and folders in a folder, unsorted, and whether each is a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path, True
            # A broken link is an error when it is read. A pipe is left out: reading would block.
            elif _is_picture(entry.name) and (
                entry.is_file() or (entry.is_symlink() and not entry.is_dir())
            ):
                yield entry.path, False


def _is_picture(name: str) -> bool:
    """Return whether a file's suffix is a picture's; macOS's "._" files are none."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and (dot + suffix).lower() in PICTURE_SUFFIXES and stem[:2] != "._"


def _container(path: Path) -> Source:
    entries = partial(_contents, path)
    next(entries(), None)  # A file of another kind is found before any work.
    expected = sum(1 for _ in entries()) if path.suffix.lower() == ".zip" else None
    if _reader(path) is _array:
        with _opened(path) as file:
            expected = _header(path, file)[0]
    status = path.stat()
    return Source(str(path), entries, [str(path), status.st_size, status.st_mtime_ns], expected)


def _contents(path: Path) -> Iterator[Entry]:
    """Yield the pictures of a file in its order."""
    read = _reader(path) or _tar
    with _opened(path) as file:
        yield from ((f"{path}#{name}", place, size) for name, place, size in read(path, file))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, and unpack it where gzip compresses it as a whole."""
    try:
        with open_file(path) as file:
            is_packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield gzip.GzipFile(fileobj=file) if is_packed else file
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _sized(name: str, place: Place, size: int) -> Entry:
    """Return the entry of an encoded picture, with an error if that is too large."""
    most = DEFAULT_LIMITS.max_bytes
    if size <= most:
        return name, place, size
    return name, ImageTooLargeError(f"the picture has {size:,} bytes; at most {most:,}"), 0


def _parquet(path: Path, _: object) -> Iterator[Entry]:
    for number, picture in enumerate(read_binary(path, "image")):
        place: Place = UnreadableImageError("the row has no encoded picture in its column image")
        if isinstance(picture, bytes):
            place = picture
        yield _sized(str(number), place, len(picture or b""))


def _zip(path: Path, file: Any) -> Iterator[Entry]:
    members = zipfile.ZipFile(file).infolist()
    end = file.seek(0, os.SEEK_END)
    for member in members:
        name, method, size = member.orig_filename, member.compress_type, member.file_size
        if not _is_picture(name):
            continue
        place: Place = Extent(path, member.header_offset, size, member=member)
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            place = UnsupportedImageError(f"ZIP method {method} is neither stored nor deflate")
        elif not 0 <= member.header_offset < end:
            place = UnreadableImageError("the archive has no member where its directory says")
        yield _sized(name, place, max(size, member.compress_size - _PACKING_SLACK))


def _tar(path: Path, file: Any) -> Iterator[Entry]:
    """Yield the pictures of a TAR archive, as bytes where gzip compresses it."""

    def read(size: int) -> bytes:
        if size > _TAR_HEADER:
            raise tarfile.ReadError(f"a member has a header of more than {_TAR_HEADER:,} bytes")
        return bytes(file.read(size))

    # The library takes whole headers into memory.
    headers: Any = SimpleNamespace(read=read, seek=file.seek, tell=file.tell)
    with tarfile.open(fileobj=headers, mode="r:") as archive:
        while (member := archive.next()) is not None:
            # The library keeps every member, and what headers say of all that follow.
            archive.members.clear()  # type: ignore[attr-defined]
            archive.pax_headers.clear()  # type: ignore[attr-defined]
            if not (member.isreg() and _is_picture(member.name)):
                continue
            place: Place = UnsupportedImageError("the member is a sparse file")
            if not member.issparse():
                place = Extent(path, member.offset_data, member.size)
            name, place, size = _sized(member.name, place, member.size)
            yield name, _unpacked(file, place), size
    # tarfile stops at any block that is not a header; a whole archive ends in zeros.
    file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if not end or end.strip(b"\0"):
        raise tarfile.ReadError("the archive is truncated or damaged")
    # Reading to the end makes gzip compare its checksum.
    while isinstance(file, gzip.GzipFile) and file.read(2**20):
        pass


def _unpacked(file: Any, place: Place) -> Place:
    """Return the picture at a place of what gzip compresses, which workers cannot seek in."""
    if not (isinstance(file, gzip.GzipFile) and isinstance(place, Extent)):
        return place
    found = place.read(file)
    if not isinstance(found, UnreadableImageError):
        return found
    raise EOFError("it ends inside a picture")


def _array(path: Path, file: Any) -> Iterator[Entry]:
    """Yield the pictures of an array, unpacked where gzip compresses it."""
    total, *shape = _header(path, file)
    start, each = file.tell(), math.prod(shape)
    packed = isinstance(file, gzip.GzipFile)
    there = total * each if packed else path.stat().st_size - start
    for number in range(min(total, there // each)):
        place = Extent(path, start + number * each, each, tuple(shape))
        yield str(number), _unpacked(file, place), each
    if there < total * each:
        raise DataError(f"{path} ends after {there // each:,} of {total:,} pictures")
    # Reading past the end makes gzip compare its checksum.
    if there > total * each or (packed and file.read(1)):
        raise DataError(f"{path} holds more than the {total:,} pictures of its header")


def _header(path: Path, file: Any) -> tuple[int, ...]:
    """Return (N, H, W) or (N, H, W, C) as declared; leave ``file`` after the header."""
    shape = _npy_header(path, file) if path.suffix.lower() == ".npy" else _idx_header(path, file)
    (height, width), most = shape[1:3], DEFAULT_LIMITS.max_pixels
    if min(height, width) < 1 or height * width > most:
        raise DataError(
            f"{path}: its pictures have {height:,} x {width:,} pixels; at least 1 and at most "
            f"{most:,} are allowed"
        )
    return shape


def _npy_header(path: Path, file: Any) -> tuple[int, ...]:
    shape, by_columns, dtype = _NPY_HEADERS[np.lib.format.read_magic(file)](file)
    if dtype != np.uint8:
        raise DataError(f"{path} holds {dtype}; pictures are uint8, 0 to 255")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise DataError(
            f"{path} has the shape {shape}; supported are (N, H, W) and (N, H, W, C) with "
            "1, 3 or 4 channels"
        )
    if by_columns and shape[0]:
        raise DataError(f"{path} is in Fortran's order; save it with numpy.ascontiguousarray")
    return tuple(shape)


def _idx_header(path: Path, file: Any) -> tuple[int, ...]:
    """Read two zero bytes, the type (8 is uint8), the number of dimensions, and each dimension.

    LeCun, Cortes and Burges, "The MNIST database", at the end of its page.
    """
    header = file.read(16)
    if len(header) < 16 or header[:4] != b"\0\0\x08\x03":
        raise DataError(
            f"{path} is not an IDX file of pictures: it begins with {header[:4].hex(' ')}, not "
            "with 00 00 08 03, or its header is truncated"
        )
    return struct.unpack(">3I", header[4:])
