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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, TypeAlias

import numpy as np

from inkdigits.batch.shards import Extent, Place, Shard
from inkdigits.batch.storage import READ_AHEAD, as_path
from inkdigits.decision.prediction import Box
from inkdigits.errors import DataError, ImageError
from inkdigits.ink.decode import DEFAULT_LIMITS
from inkdigits.log.tables import read_binary

SHARD_PICTURES: Final = 512
SHARD_BYTES: Final = 16 * 2**20  # as far as they are known unread; the last picture may be larger
IDX_NAME: Final = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$")

_SUFFIXES: Final = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_TAR_HEADER: Final = 2**17  # bytes of a member's long name, or of its PAX records
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
    """Something with pictures in it; its name says what it is (docs/read-in-bulk.md)."""

    path: Any  # as of ``as_path``

    @property
    def kind(self) -> Callable[[Path, Any], Iterator[Entry]] | None:
        """What reads a file with many pictures; None is a folder or one picture."""
        name = self.path.name.lower()
        if self.path.is_dir():
            return None
        if IDX_NAME.search(name) or name.endswith(".npy"):
            return _array
        if name.endswith((".tar", ".tar.gz", ".tgz")):
            return _tar
        return {".zip": _zip, ".parquet": _parquet}.get(self.path.suffix.lower())

    @property
    def identity(self) -> list[str | int]:
        """What tells whether the source is the same as in an earlier run, for JSON."""
        if self.kind is None or not self.path.exists():
            return [str(self.path)]
        status = self.path.stat()
        return [str(self.path), status.st_size, status.st_mtime_ns]

    @property
    def expected(self) -> int | None:
        """How many pictures there are; None where only reading all of it tells."""
        return sum(1 for _ in self.pictures()) if self.kind in (None, _zip, _array) else None

    def pictures(self) -> Iterator[Entry]:
        """Yield the pictures; one more says why the source ends early or has none."""
        why = f"{self.path} contains no pictures ({', '.join(sorted(_SUFFIXES))})"
        try:
            for entry in self._entries():
                yield entry
                why = ""
        except DataError as error:
            why = str(error)
        except _DAMAGED as error:
            why = f"{self.path} cannot be read: {error}"
        if why:
            yield str(self.path), ImageError(why), 0

    def _entries(self) -> Iterable[Entry]:
        if kind := self.kind:
            return _contents(self.path, kind)
        if self.path.is_dir():
            return _walk(self.path) if isinstance(self.path, Path) else _objects(self.path)
        # An object's size is not known here, so it counts as one of the largest.
        size = 0 if isinstance(self.path, Path) else DEFAULT_LIMITS.max_bytes
        return [(str(self.path), self.path, size)]


def shards_of(
    sources: Iterable[Source], regions: Mapping[str, Sequence[Box]] | None = None
) -> Iterator[Shard]:
    """Yield the pictures of sources in shards, with the regions of their names, or those of "".

    >>> [shard.names for shard in shards_of([Source(Path("a.png")), Source(Path("b.png"))])]
    [['a.png', 'b.png']]
    """
    entries = chain.from_iterable(source.pictures() for source in sources)
    while some := list(_next_of(entries)):
        names = [name for name, *_ in some]
        boxes = None if regions is None else [regions.get(n, regions.get("", ())) for n in names]
        yield Shard(names, [place for _, place, _ in some], boxes)


def _next_of(entries: Iterator[Entry]) -> Iterator[Entry]:
    held = 0
    for entry in islice(entries, SHARD_PICTURES):
        held += entry[2]
        yield entry
        if held >= SHARD_BYTES:
            return


def _objects(folder: Any) -> list[Entry]:
    listed = sorted(folder.fs.find(folder.path, detail=True).items())
    names = ((folder.fs.unstrip_protocol(key), about["size"]) for key, about in listed)
    return [_sized(name, as_path(name), size) for name, size in names if _is_picture(name)]


def _walk(folder: Path) -> Iterator[Entry]:
    try:
        inside = sorted(os.scandir(folder), key=attrgetter("name"))
    except OSError as error:
        yield str(folder), ImageError(f"the folder cannot be read: {error.strerror}"), 0
        return
    for one in inside:
        if one.is_dir(follow_symlinks=False):
            yield from _walk(Path(one))
        # A broken link is an error when it is read; a pipe would block.
        elif _is_picture(one.name) and (one.is_file() or one.is_symlink()):
            yield one.path, Path(one), 0


def _is_picture(name: str) -> bool:
    """Return whether a file's suffix is a picture's; macOS's "._" files are none."""
    stem, dot, suffix = name.rpartition("/")[2].rpartition(".")
    return bool(stem) and (dot + suffix).lower() in _SUFFIXES and stem[:2] != "._"


def _contents(path: Path, kind: Callable[[Path, Any], Iterator[Entry]]) -> Iterator[Entry]:
    # Workers cannot seek in what gzip compresses as a whole, so those pictures are read here.
    is_packed = path.suffix.lower() in (".gz", ".tgz")
    with path.open("rb", READ_AHEAD) as opened:
        file: Any = gzip.GzipFile(fileobj=opened) if is_packed else opened
        for name, place, size in kind(path, file):
            found = place.read(file) if is_packed and isinstance(place, Extent) else place
            if found is not place and isinstance(found, ImageError):
                raise EOFError("it ends inside a picture")
            yield f"{path}#{name}", found, size
        # Reading to the end makes gzip compare its checksum.
        while is_packed and file.read(READ_AHEAD):
            pass


def _sized(name: str, place: Place, size: int) -> Entry:
    """Return the entry of an encoded picture, with an error if that is too large."""
    most = DEFAULT_LIMITS.max_bytes
    if size <= most:
        return name, place, size
    return name, ImageError(f"the picture has {size:,} bytes; at most {most:,}"), 0


def _parquet(path: Path, _: object) -> Iterator[Entry]:
    without = ImageError("the row has no encoded picture in its column image")
    for number, picture in enumerate(read_binary(path, "image")):
        yield _sized(str(number), without if picture is None else picture, len(picture or b""))


def _zip(path: Path, file: Any) -> Iterator[Entry]:
    members = zipfile.ZipFile(file).infolist()
    end = file.seek(0, os.SEEK_END)
    for member in members:
        name, method, start = member.orig_filename, member.compress_type, member.header_offset
        place: Place = Extent(path, start, member.file_size, member=member)
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            place = ImageError(f"ZIP method {method} is neither stored nor deflate")
        elif not 0 <= start < end:
            place = ImageError("the archive has no member where its directory says")
        if _is_picture(name):
            yield _sized(name, place, member.file_size)


def _tar(path: Path, file: Any) -> Iterator[Entry]:
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
            place: Place = Extent(path, member.offset_data, member.size)
            if member.issparse():
                place = ImageError("the member is a sparse file")
            if member.isreg() and _is_picture(member.name):
                yield _sized(member.name, place, member.size)
    # tarfile stops at any block that is not a header; a whole archive ends in zeros.
    file.seek(archive.offset)
    end = file.read(tarfile.BLOCKSIZE)
    if not end or end.strip(b"\0"):
        raise tarfile.ReadError("the archive is truncated or damaged")


def _array(path: Path, file: Any) -> Iterator[Entry]:
    shape: Sequence[int]
    if path.suffix.lower() == ".npy":
        np.lib.format.read_magic(file)
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file)
        what = f"{dtype}{' in Fortran order' * by_columns}"
    else:
        # Two zero bytes, the type (8 is uint8), the number of dimensions, and each dimension:
        # LeCun, Cortes and Burges, "The MNIST database", at the end of its page.
        start, *shape = struct.unpack(">4s3I", file.read(16))
        what = "uint8" if start == b"\0\0\x08\x03" else f"IDX of the type {start.hex(' ')}"
    has_axes = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    most = DEFAULT_LIMITS.max_pixels
    if what != "uint8" or not has_axes or not 1 <= shape[1] * shape[2] <= most:
        raise DataError(
            f"{path} holds {what} of the shape {tuple(shape)}; supported is uint8 in C order, of "
            f"(N, H, W), or (N, H, W, C) with 1, 3 or 4 channels, of 1 to {most:,} pixels"
        )
    total, one, first = shape[0], tuple(shape[1:]), file.tell()
    each = math.prod(one)
    is_packed = isinstance(file, gzip.GzipFile)
    there = total * each if is_packed else path.stat().st_size - first
    for number in range(min(total, there // each)):
        yield str(number), Extent(path, first + number * each, each, one), each
    if there != total * each or (is_packed and file.read(1)):
        raise DataError(f"{path} holds fewer or more than the {total:,} pictures of its header")
