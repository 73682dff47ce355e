"""Where many pictures come from: folders, archives and arrays, cut into chunks.

The same source gives the same chunks each time; that is what lets a run be resumed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from inkdigits.batch import arrays, folders
from inkdigits.batch.archives import PICTURE_SUFFIXES, Extent, Member, TarMembers, zip_members
from inkdigits.batch.shards import Chunk, Files, Found, Members, Rows
from inkdigits.errors import DataError, ImageError, UnreadableImageError
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits

CHUNK_PICTURES: Final = 512
# A chunk ends earlier where its pictures have this many bytes, as far as that is known unread.
CHUNK_BYTES: Final = 16 * 2**20

Where = TypeVar("Where")


class Source:
    """Something with pictures in it.

    Attributes:
        name: as it was given.
        expected: how many pictures it has, as far as is known by now; for the time left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.expected: int | None = None

    def identity(self) -> dict[str, Any]:
        """What tells, as JSON, that it is the same source as in an earlier run.

        Raises:
            DataError: there is no such file.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise DataError(f"{self.path} can't be read: {error.strerror}") from error
        return {"path": self.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}

    def count(self) -> None:
        """Find out ``expected`` where that is soon done."""

    def chunks(self) -> Iterator[Chunk]:
        """Its pictures in its order. What can't be read in it comes as an error among them."""
        raise NotImplementedError


def open_sources(paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> list[Source]:
    """A source for each path; its name says of which kind.

    A folder stands for the pictures in it, at any depth, sorted. ``.zip``, ``.tar``, ``.tar.gz``
    and ``.tgz`` are archives, ``.npy`` is a NumPy array, names that end like MNIST's own
    (``-idx3-ubyte``, also ``.idx``), with ``.gz`` or without, are IDX; any other is a picture.

    Args:
        paths: as the user gave them; the sources are in this order.
        limits: what single pictures are refused by.

    Raises:
        DataError: an archive or array that isn't one, or of a shape or type that isn't taken.
    """
    sources: list[Source] = []
    for path in paths:
        name = path.name.lower()
        if path.is_dir():
            sources.append(Folder(path))
        elif name.endswith(".zip"):
            sources.append(ZipArchive(path, limits))
        elif name.endswith((".tar", ".tar.gz", ".tgz")):
            sources.append(TarArchive(path, limits))
        elif name.endswith(".npy"):
            sources.append(Array(path, limits))
        elif arrays.is_idx_name(name):
            sources.append((PackedIdx if name.endswith(".gz") else Array)(path, limits))
        elif sources and isinstance(sources[-1], Singles):
            sources[-1].add(path)
        else:
            sources.append(Singles(path))
    return sources


class Singles(Source):
    """Pictures that were named one by one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._paths: list[Path] = []
        self.add(path)

    def add(self, path: Path) -> None:
        """One more, after the others."""
        self._paths.append(path)
        self.expected = len(self._paths)

    def identity(self) -> dict[str, Any]:
        """See ``Source``; a file that isn't there is an error among the pictures."""
        return {"files": [str(path) for path in self._paths]}

    def chunks(self) -> Iterator[Chunk]:
        """See ``Source``."""
        for group in _grouped(self.name, ((str(path), path) for path in self._paths)):
            yield Files(group)


class Folder(Source):
    """The pictures in a folder and those below it."""

    def identity(self) -> dict[str, Any]:
        """See ``Source``; the chunks' keys say more."""
        return {"folder": self.name}

    def count(self) -> None:
        """See ``Source``."""
        self.expected = folders.count(self.path)

    def chunks(self) -> Iterator[Chunk]:
        """See ``Source``."""
        found = ((str(path), where) for path, where in folders.walk(self.path))
        for group in _grouped(self.name, found):
            yield Files(group)


class ZipArchive(Source):
    """The pictures in a ZIP archive."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self._limits = limits
        self.identity()
        next(zip_members(path, limits), None)  # what isn't an archive is found before any work

    def count(self) -> None:
        """See ``Source``."""
        self.expected = 0
        with contextlib.suppress(DataError):  # it will be an error among the pictures
            for _ in zip_members(self.path, self._limits):
                self.expected += 1

    def chunks(self) -> Iterator[Chunk]:
        """See ``Source``."""
        members = zip_members(self.path, self._limits)
        for group in _grouped(self.name, _inside(self.name, members)):
            yield Members(self.path, group)


class TarArchive(Source):
    """The pictures in a TAR archive, compressed with gzip or not."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self._limits = limits
        self.identity()
        next(iter(TarMembers(path, limits)), None)  # as for a ZIP archive

    def chunks(self) -> Iterator[Chunk]:
        """See ``Source``; estimates ``expected`` by how much of the file was gone through."""
        members = TarMembers(self.path, self._limits)
        seen = 0
        for group in _grouped(self.name, _inside(self.name, members)):
            seen += len(group)
            self.expected = round(seen / members.share) if members.share else None
            yield Members(self.path, group)
        self.expected = seen


class Array(Source):
    """The pictures in a NumPy array or an IDX file."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self.identity()
        is_npy = path.name.lower().endswith(".npy")
        self._file = (arrays.npy_file if is_npy else arrays.idx_file)(path, limits)
        self.expected = self._file.shape[0]

    def chunks(self) -> Iterator[Chunk]:
        """See ``Source``."""
        total = self._file.shape[0]
        step = _rows_a_chunk(self._file.shape)
        for first in range(0, total, step):
            yield Rows(self.name, first, min(step, total - first), self._file)
        if not total:
            yield Files((_without_pictures(self.name),))


class PackedIdx(Source):
    """The pictures in an IDX file that is compressed with gzip."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self.identity()
        self._limits = limits
        self._shape = arrays.packed_idx_shape(path, limits)
        self.expected = self._shape[0]

    def chunks(self) -> Iterator[Chunk]:
        """See ``Source``."""
        try:
            step = _rows_a_chunk(self._shape)
            for first, block in arrays.packed_idx_rows(self.path, self._limits, step):
                yield Rows(self.name, first, len(block), block)
        except DataError as error:
            yield Files(((self.name, UnreadableImageError(str(error))),))
        if not self._shape[0]:
            yield Files((_without_pictures(self.name),))


def _rows_a_chunk(shape: tuple[int, ...]) -> int:
    return max(1, min(CHUNK_PICTURES, CHUNK_BYTES // math.prod(shape[1:])))


def _grouped(source: str, found: Iterable[tuple[str, Where]]) -> Iterator[tuple[Found[Where], ...]]:
    """Groups for chunks. The source's own failure, or its having no pictures, is one more entry."""
    group: list[Found[Where]] = []
    size = 0
    seen = 0
    entries = iter(found)
    while True:
        try:
            entry = next(entries)
        except StopIteration:
            if not seen:
                yield (_without_pictures(source),)
            break
        except (DataError, OSError) as error:
            group.append((source, UnreadableImageError(str(error))))
            break
        seen += 1
        group.append(entry)
        size += _bytes_of(entry[1])
        if len(group) == CHUNK_PICTURES or size >= CHUNK_BYTES:
            yield tuple(group)
            group, size = [], 0
    if group:
        yield tuple(group)


def _inside(archive: str, members: Iterable[Member]) -> Iterator[Found[Extent | bytes]]:
    for name, where in members:
        yield f"{archive}#{name}", where


def _bytes_of(where: object) -> int:
    if isinstance(where, Extent):
        return where.size
    return len(where) if isinstance(where, bytes) else 0


def _without_pictures(source: str) -> tuple[str, ImageError]:
    suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
    return source, UnreadableImageError(f"{source} holds no pictures ({suffixes})")
