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
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import numpy as np

from inkdigits.batch.shards import MEMBER, Extent, Place, Shard
from inkdigits.batch.storage import as_path, filesystem, open_file
from inkdigits.errors import (
    DataError,
    ImageError,
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

# A long name of a TAR member, or its PAX records, have at most these bytes.
_TAR_HEADER: Final = 2**17
# What the libraries raise for a damaged file. NumPy parses a header as Python literals.
_DAMAGED: Final = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, NotImplementedError),
    *(OSError, EOFError, ValueError, KeyError, TypeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)

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
        names, places, held = list[str](), list[Place](), 0
        for name, place, size in self._all():
            names.append(name)
            places.append(place)
            held += size
            if len(names) == SHARD_PICTURES or held >= SHARD_BYTES:
                yield Shard(names, places)
                names, places, held = [], [], 0
        if names:
            yield Shard(names, places)

    def _all(self) -> Iterator[Entry]:
        """Yield the entries; one more says why the source ends early or has no pictures."""
        why = f"{self.name} contains no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})"
        try:
            for entry in self.entries():
                yield entry
                why = ""
        except (DataError, OSError) as error:
            why = str(error)
        if why:
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
            most = DEFAULT_LIMITS.max_bytes
            entries = [(str(one), one, most if filesystem(one) else 0) for one in some]
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
    return {".zip": _zip, ".parquet": _parquet}.get(path.suffix.lower())


def _folder(path: Any) -> Source:
    entries: Callable[[], Iterable[Entry]] = partial(walk, path)
    if filesystem(path):
        listed = sorted(path.fs.find(path.path, detail=True).items())
        names = ((path.fs.unstrip_protocol(key), about["size"]) for key, about in listed)
        found = [_sized(name, as_path(name), size) for name, size in names if _is_picture(name)]
        entries = found.copy
    return Source(str(path), entries, [str(path)], sum(1 for _ in entries()))


def walk(folder: Path) -> Iterator[Entry]:
    """Yield the pictures in a folder in the order in which paths sort.

    >>> [str(error) for _, error, _ in walk(Path("missing"))]
    ['the folder cannot be read: No such file or directory']
    """
    try:
        with os.scandir(folder) as listed:
            inside = sorted((one.name, one) for one in listed if _is_source(one))
    except OSError as error:
        why = f"the folder cannot be read: {error.strerror}"
        yield str(folder), UnreadableImageError(why), 0
        return
    for _, one in inside:
        if one.is_dir(follow_symlinks=False):
            yield from walk(Path(one))
        else:
            yield one.path, Path(one), 0


def _is_source(entry: os.DirEntry[str]) -> bool:
    """Return whether something in a folder is a folder or a picture.

    A broken link is an error when it is read. A pipe is left out: reading would block.
    """
    if entry.is_dir():
        return not entry.is_symlink()
    return _is_picture(entry.name) and (entry.is_file() or entry.is_symlink())


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
    """Yield the pictures of a file in its order; as such where gzip compresses the file.

    There workers cannot seek.
    """
    read = _reader(path) or _tar
    with _opened(path) as file:
        is_packed = isinstance(file, gzip.GzipFile)
        for name, place, size in read(path, file):
            found = place.read(file) if is_packed and isinstance(place, Extent) else place
            if found is not place and isinstance(found, ImageError):
                raise DataError(f"{path} ends inside a picture")
            yield f"{path}#{name}", found, size


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
    without = UnreadableImageError("the row has no encoded picture in its column image")
    for number, picture in enumerate(read_binary(path, "image")):
        yield _sized(str(number), without if picture is None else picture, len(picture or b""))


def _zip(path: Path, file: Any) -> Iterator[Entry]:
    members, fields = zipfile.ZipFile(file).infolist(), attrgetter(*MEMBER)
    end = file.seek(0, os.SEEK_END)
    for member in members:
        name, method = member.orig_filename, member.compress_type
        if not _is_picture(name):
            continue
        place: Place = Extent(path, member.header_offset, member.file_size, None, fields(member))
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            place = UnsupportedImageError(f"ZIP method {method} is neither stored nor deflate")
        elif not 0 <= member.header_offset < end:
            place = UnreadableImageError("the archive has no member where its directory says")
        yield _sized(name, place, member.file_size)


def _tar(path: Path, file: Any) -> Iterator[Entry]:
    """Yield the pictures of a TAR archive."""

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
            yield _sized(member.name, place, member.size)
    # tarfile stops at any block that is not a header; a whole archive ends in zeros.
    file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if not end or end.strip(b"\0"):
        raise tarfile.ReadError("the archive is truncated or damaged")
    # Reading to the end makes gzip compare its checksum.
    while isinstance(file, gzip.GzipFile) and file.read(2**20):
        pass


def _array(path: Path, file: Any) -> Iterator[Entry]:
    """Yield the pictures of an array."""
    total, *shape = _header(path, file)
    start, each = file.tell(), math.prod(shape)
    packed = isinstance(file, gzip.GzipFile)
    there = total * each if packed else path.stat().st_size - start
    for number in range(min(total, there // each)):
        yield str(number), Extent(path, start + number * each, each, tuple(shape)), each
    if there < total * each:
        raise DataError(f"{path} ends after {there // each:,} of {total:,} pictures")
    # Reading past the end makes gzip compare its checksum.
    if there > total * each or (packed and file.read(1)):
        raise DataError(f"{path} holds more than the {total:,} pictures of its header")


def _header(path: Path, file: Any) -> tuple[int, ...]:
    """Return (N, H, W) or (N, H, W, C) as declared; leave ``file`` after the header.

    IDX has two zero bytes, the type (8 is uint8), the number of dimensions, and each dimension:
    LeCun, Cortes and Burges, "The MNIST database", at the end of its page.
    """
    if path.suffix.lower() == ".npy":
        np.lib.format.read_magic(file)
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        what = f"{dtype} of the shape {shape}{' in Fortran order' * by_columns}"
        has_axes = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
        is_supported = has_axes and dtype == np.uint8 and not by_columns
    else:
        start, *sizes = struct.unpack(">4s3I", file.read(16))
        shape = tuple(sizes)
        what = f"an IDX array that begins with {start.hex(' ')}, not with 00 00 08 03"
        is_supported = start == b"\0\0\x08\x03"
    if not is_supported:
        raise DataError(
            f"{path} holds {what}; supported is uint8 in C order, of (N, H, W), or (N, H, W, C) "
            "with 1, 3 or 4 channels"
        )
    (height, width), most = shape[1:3], DEFAULT_LIMITS.max_pixels
    if min(height, width) < 1 or height * width > most:
        raise DataError(
            f"{path}: its pictures have {height:,} x {width:,} pixels; at least 1 and at most "
            f"{most:,} are allowed"
        )
    return shape
