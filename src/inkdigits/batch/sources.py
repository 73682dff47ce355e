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
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Final, TypeAlias, cast

import numpy as np

from inkdigits.batch.shards import Extent, Place, Shard, grouped
from inkdigits.batch.storage import as_path, filesystem
from inkdigits.errors import (
    DataError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits
from inkdigits.log.tables import read_binary

SHARD_PICTURES: Final = 512
# A shard ends earlier where its pictures have this many bytes, as far as that is known unread.
SHARD_BYTES: Final = 16 * 2**20

PICTURE_SUFFIXES: Final = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
IDX_NAME: Final = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$")

_ENCRYPTED: Final = 0x1  # a flag of a ZIP member
# So many bytes more a packed member may have than its contents; deflate needs far fewer.
_PACKING_SLACK: Final = 4096
# The headers of one TAR member, with its long name and its PAX records, have at most these bytes.
_TAR_HEADERS: Final = 2**17
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

Entry: TypeAlias = "tuple[str, Place]"
"""The name of a picture and where it is."""


@dataclass(frozen=True, slots=True)
class Source:
    """Something with pictures in it."""

    name: str
    entries: Callable[[], Iterable[Entry]]
    identity: Sequence[str | int]  # as JSON; tells whether it is the same as in an earlier run
    expected: int | None  # its pictures, where that is known; for the time left

    def shards(self) -> Iterator[Shard]:
        """Yield the pictures in shards."""
        for group in grouped(self._all(), SHARD_PICTURES, SHARD_BYTES, lambda entry: entry[1]):
            yield Shard([name for name, _ in group], [place for _, place in group])

    def _all(self) -> Iterator[Entry]:
        """Yield the entries; one more says why the source ends early or has no pictures."""
        number = 0
        try:
            for number, entry in enumerate(self.entries(), 1):  # noqa: B007
                yield entry
        except (DataError, OSError) as error:
            yield self.name, UnreadableImageError(str(error))
            return
        if not number:
            suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
            yield self.name, UnreadableImageError(f"{self.name} holds no pictures ({suffixes})")


def open_sources(paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> list[Source]:
    """Return the sources of some paths, in their order; the name of a path says what kind it is.

    A folder stands for the pictures in it, at any depth, sorted. ``.zip``, ``.tar``, ``.tar.gz``
    and ``.tgz`` are archives, ``.npy`` is a NumPy array, names that end like MNIST's own
    (``-idx3-ubyte``, also ``.idx``), with ``.gz`` or without, are IDX, and ``.parquet`` is a table
    with encoded pictures in its column ``image``. Any other is a picture, and pictures that follow
    each other are one source. ``limits`` reject larger pictures. A DataError says that a file is
    not what its name says, or of an unsupported shape or type.

    >>> [source.expected for source in open_sources([Path("a.png"), Path("b.png")])]
    [2]
    """
    sources: list[Source] = []
    for is_file, some in groupby(paths, lambda path: not (path.is_dir() or _reader(path))):
        if is_file:
            files = list(some)
            names = [str(path) for path in files]
            sources.append(Source(names[0], partial(_files, files, limits), names, len(files)))
        else:
            sources += [(_folder if path.is_dir() else _container)(path, limits) for path in some]
    return sources


def holds_many(path: Path) -> bool:
    """Return whether a path is that of an archive, a table or an array.

    >>> holds_many(Path("a.zip")), holds_many(Path("a.png"))
    (True, False)
    """
    return not path.is_dir() and _reader(path) is not None


def _reader(path: Path) -> Callable[[Path, Any, Limits], Iterator[Entry]] | None:
    """Return what reads the pictures of a file with many, by its name."""
    name = path.name.lower()
    if IDX_NAME.search(name) or name.endswith(".npy"):
        return _array
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar
    if name.endswith(".zip"):
        return _zip
    return _parquet if name.endswith(".parquet") else None


def _files(paths: Sequence[Path], limits: Limits) -> Iterator[Entry]:
    for path in paths:
        place: Place = path
        if filesystem(path) is not None:
            try:
                place = _extent(path, path.stat().st_size, limits)
            except FileNotFoundError:
                place = UnreadableImageError(f"there is no {path}")
        yield str(path), place


def _folder(path: Path, limits: Limits) -> Source:
    inside = partial(walk, path) if filesystem(path) is None else partial(_listing, path, limits)
    return Source(str(path), inside, [str(path)], sum(1 for _ in inside()))


def _listing(folder: Any, limits: Limits) -> Iterator[Entry]:
    """Yield the pictures below a folder of an object store, sorted."""
    for key, about in sorted(folder.fs.find(folder.path, detail=True).items()):
        if _is_picture_name(key):
            name = folder.fs.unstrip_protocol(key)
            yield name, _extent(as_path(name), about["size"], limits)


def walk(folder: Path) -> Iterator[Entry]:
    """Yield the pictures in a folder in the order in which paths sort.

    >>> [str(error) for _, error in walk(Path("missing"))]
    ['the folder cannot be read: No such file or directory']
    """
    ahead = [(str(folder), True)]
    while ahead:
        name, is_folder = ahead.pop()
        if not is_folder:
            yield name, Path(name)
            continue
        try:
            ahead += sorted(_listed(name), reverse=True)
        except OSError as error:
            yield name, UnreadableImageError(f"the folder cannot be read: {error.strerror}")


def _listed(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the pictures and folders in a folder, unsorted, and whether each is a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path, True
            # A broken link is an error when it is read. A pipe is left out: reading would block.
            elif _is_picture_name(entry.name) and (
                entry.is_file() or (entry.is_symlink() and not entry.is_dir())
            ):
                yield entry.path, False


def _is_picture_name(name: str) -> bool:
    """Return whether a file's suffix is a picture's; macOS's "._" files are none."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and (dot + suffix).lower() in PICTURE_SUFFIXES and stem[:2] != "._"


def _container(path: Path, limits: Limits) -> Source:
    entries = partial(_contents, path, limits)
    next(entries(), None)  # A file of another kind is found before any work.
    expected = sum(1 for _ in entries()) if path.suffix.lower() == ".zip" else None
    with _opened(path) as file:
        status = path.stat()
        expected = _header(path, file, limits)[0] if _reader(path) is _array else expected
    identity: list[str | int] = [str(path), status.st_size, status.st_mtime_ns]
    return Source(str(path), entries, identity, expected)


def _contents(path: Path, limits: Limits) -> Iterator[Entry]:
    """Yield the pictures of a file in its order."""
    read = _reader(path) or _tar
    with _opened(path) as file:
        yield from ((f"{path}#{name}", place) for name, place in read(path, file, limits))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file, and unpack it where gzip compresses it as a whole."""
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            yield gzip.GzipFile(fileobj=file) if is_packed else file
    except _DAMAGED as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _parquet(path: Path, _: object, limits: Limits) -> Iterator[Entry]:
    for number, picture in enumerate(read_binary(path, "image")):
        place: Place = UnreadableImageError("the row has no encoded picture in its column image")
        if isinstance(picture, bytes):
            place = _too_large(len(picture), limits) or picture
        yield str(number), place


def _too_large(size: int, limits: Limits) -> ImageTooLargeError | None:
    most = limits.max_bytes
    text = f"the picture has {size:,} bytes; at most {most:,}"
    return ImageTooLargeError(text) if size > most else None


def _extent(path: Path, size: int, limits: Limits, offset: int = 0) -> Place:
    return _too_large(size, limits) or Extent(path, offset, size, size)


def _zip(path: Path, file: IO[bytes], limits: Limits) -> Iterator[Entry]:
    for member in zipfile.ZipFile(file).infolist():
        if not _is_picture_name(member.orig_filename):
            continue
        method, packed, size = member.compress_type, member.compress_size, member.file_size
        place = _extent(path, max(size, packed - _PACKING_SLACK), limits, member.header_offset)
        if member.flag_bits & _ENCRYPTED:
            place = UnsupportedImageError("the member is encrypted")
        elif method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            place = UnsupportedImageError(f"ZIP method {method} is neither stored nor deflate")
        elif isinstance(place, Extent):
            deflated = method == zipfile.ZIP_DEFLATED
            place = replace(place, packed=packed, size=size, crc=member.CRC, deflated=deflated)
        yield member.orig_filename, place


class _Headers:
    """A TAR archive for ``tarfile``, which takes whole headers into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read
        self.left = _TAR_HEADERS

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"a member has headers of more than {_TAR_HEADERS:,} bytes")
        return self._read(size)


def _tar(path: Path, file: IO[bytes], limits: Limits) -> Iterator[Entry]:
    """Yield the pictures of a TAR archive, as bytes where gzip compresses it."""
    packed, headers = isinstance(file, gzip.GzipFile), cast(Any, _Headers(file))
    with tarfile.open(fileobj=headers, mode="r:") as archive:
        while (member := archive.next()) is not None:
            # The library keeps every member, and what headers say of all that follow.
            archive.members.clear()  # type: ignore[attr-defined]
            archive.pax_headers.clear()  # type: ignore[attr-defined]
            headers.left = _TAR_HEADERS
            if not (member.isreg() and _is_picture_name(member.name)):
                continue
            place: Place = UnsupportedImageError("the member is a sparse file")
            if not member.issparse():
                place = _extent(path, member.size, limits, member.offset_data)
            yield member.name, _unpacked(file, place) if packed else place
    # tarfile stops at any block that is not a header; a whole archive ends in zeros.
    file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if not end or end.strip(b"\0"):
        raise tarfile.ReadError("the archive is truncated or damaged")
    # Reading to the end makes gzip compare its checksum.
    while packed and file.read(2**20):
        pass


def _unpacked(file: IO[bytes], place: Place) -> Place:
    """Return the picture at a place of what gzip compresses, which workers cannot seek in."""
    if not isinstance(place, Extent):
        return place
    file.seek(place.offset)
    content = file.read(place.size)
    if len(content) < place.size:
        raise EOFError("it ends inside a picture")
    shape = place.shape
    return content if shape is None else np.frombuffer(content, np.uint8).reshape(shape)


def _array(path: Path, file: IO[bytes], limits: Limits) -> Iterator[Entry]:
    """Yield the pictures of an array, unpacked where gzip compresses it."""
    total, *shape = _header(path, file, limits)
    start, each = file.tell(), math.prod(shape)
    packed = isinstance(file, gzip.GzipFile)
    there = total * each if packed else path.stat().st_size - start
    for number in range(min(total, there // each)):
        place = Extent(path, start + number * each, each, each, shape=tuple(shape))
        yield str(number), _unpacked(file, place) if packed else place
    if there < total * each:
        raise DataError(f"{path} ends after {there // each:,} of {total:,} pictures")
    # Reading past the end makes gzip compare its checksum.
    if there > total * each or (packed and file.read(1)):
        raise DataError(f"{path} holds more than the {total:,} pictures of its header")


def _header(path: Path, file: IO[bytes], limits: Limits) -> tuple[int, ...]:
    """Return (N, H, W) or (N, H, W, C) as declared; leave ``file`` after the header."""
    shape = _npy_header(path, file) if path.suffix.lower() == ".npy" else _idx_header(path, file)
    height, width = shape[1:3]
    if min(height, width) < 1 or height * width > limits.max_pixels:
        raise DataError(
            f"{path}: its pictures have {height:,} x {width:,} pixels; at least 1 and at most "
            f"{limits.max_pixels:,} are allowed"
        )
    return shape


def _npy_header(path: Path, file: IO[bytes]) -> tuple[int, ...]:
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


def _idx_header(path: Path, file: IO[bytes]) -> tuple[int, ...]:
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
