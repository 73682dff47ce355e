"""Where many pictures come from: folders, archives and arrays, cut into shards.

The same source gives the same shards each time, so a run can be resumed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from inkdigits.batch import arrays, folders
from inkdigits.batch.archives import PICTURE_SUFFIXES, Extent, Member, TarMembers, zip_members
from inkdigits.batch.shards import ArchiveShard, ArrayShard, Entry, FileShard, Place, Shard
from inkdigits.errors import DataError, ImageError, UnreadableImageError
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits

SHARD_PICTURES: Final = 512
# A shard ends earlier where its pictures have this many bytes, as far as that is known unread.
SHARD_BYTES: Final = 16 * 2**20


class Source:
    """Something with pictures in it.

    Args:
        path: where it is; it must exist.

    Attributes:
        name: as it was given.
        expected: how many pictures it has, as far as is known by now; for the time left.

    Raises:
        DataError: there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.expected: int | None = None
        self.identity()

    def identity(self) -> dict[str, Any]:
        """Return, as JSON, what tells that it is the same source as in an earlier run.

        Raises:
            DataError: there is no such file.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}") from error
        return {"path": self.name, "bytes": status.st_size, "modified_ns": status.st_mtime_ns}

    def count(self) -> None:
        """Find out ``expected`` where that does not take long."""

    def shards(self) -> Iterator[Shard]:
        """Yield its pictures in order, with an error in the place of what cannot be read."""
        raise NotImplementedError


def open_sources(paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> list[Source]:
    """Return the sources of some paths; the name of a path says what kind it is.

    A folder stands for the pictures in it, at any depth, sorted. ``.zip``, ``.tar``, ``.tar.gz``
    and ``.tgz`` are archives, ``.npy`` is a NumPy array, names that end like MNIST's own
    (``-idx3-ubyte``, also ``.idx``), with ``.gz`` or without, are IDX; any other is a picture.

    Args:
        paths: as the user gave them; the sources are in this order.
        limits: larger pictures are rejected.

    Raises:
        DataError: an archive or array that is not one, or of an unsupported shape or type.

    >>> [source.expected for source in open_sources([Path("a.png"), Path("b.png")])]
    [2]
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
    """Pictures that were named one by one; a missing file is an error among the pictures."""

    def __init__(self, path: Path) -> None:
        self._paths: list[Path] = []
        super().__init__(path)
        self.add(path)

    def add(self, path: Path) -> None:
        """Add a picture after the others."""
        self._paths.append(path)
        self.expected = len(self._paths)

    def identity(self) -> dict[str, Any]:
        """See ``Source``."""
        return {"files": [str(path) for path in self._paths]}

    def shards(self) -> Iterator[Shard]:
        """See ``Source``."""
        for entries in _grouped(self.name, ((str(path), path) for path in self._paths)):
            yield FileShard(entries)


class Folder(Source):
    """The pictures in a folder and those below it."""

    def identity(self) -> dict[str, Any]:
        """See ``Source``; the shards' keys say more."""
        return {"folder": self.name}

    def count(self) -> None:
        """See ``Source``."""
        self.expected = folders.count(self.path)

    def shards(self) -> Iterator[Shard]:
        """See ``Source``."""
        found = ((str(path), place) for path, place in folders.walk(self.path))
        for entries in _grouped(self.name, found):
            yield FileShard(entries)


class ZipArchive(Source):
    """The pictures in a ZIP archive."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self._limits = limits
        next(zip_members(path, limits), None)  # A file of another kind is found before any work.

    def count(self) -> None:
        """See ``Source``."""
        self.expected = 0
        with contextlib.suppress(DataError):  # It will be an error among the pictures.
            for _ in zip_members(self.path, self._limits):
                self.expected += 1

    def shards(self) -> Iterator[Shard]:
        """See ``Source``."""
        members = zip_members(self.path, self._limits)
        for entries in _grouped(self.name, _inside(self.name, members)):
            yield ArchiveShard(self.path, entries)


class TarArchive(Source):
    """The pictures in a TAR archive, compressed with gzip or not."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self._limits = limits
        next(iter(TarMembers(path, limits)), None)  # As for a ZIP archive.

    def shards(self) -> Iterator[Shard]:
        """See ``Source``; estimates ``expected`` from the fraction of the file that was read."""
        members = TarMembers(self.path, self._limits)
        seen = 0
        for entries in _grouped(self.name, _inside(self.name, members)):
            seen += len(entries)
            self.expected = round(seen / members.fraction) if members.fraction else None
            yield ArchiveShard(self.path, entries)
        self.expected = seen


class Array(Source):
    """The pictures in a NumPy array or an IDX file."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        is_npy = path.name.lower().endswith(".npy")
        self._file = (arrays.npy_file if is_npy else arrays.idx_file)(path, limits)
        self.expected = self._file.shape[0]

    def shards(self) -> Iterator[Shard]:
        """See ``Source``."""
        total = self._file.shape[0]
        step = _rows_per_shard(self._file.shape)
        for first in range(0, total, step):
            yield ArrayShard(self.name, first, min(step, total - first), self._file)
        if not total:
            yield FileShard((_without_pictures(self.name),))


class PackedIdx(Source):
    """The pictures in an IDX file that is compressed with gzip."""

    def __init__(self, path: Path, limits: Limits) -> None:
        super().__init__(path)
        self._limits = limits
        self._shape = arrays.packed_idx_shape(path, limits)
        self.expected = self._shape[0]

    def shards(self) -> Iterator[Shard]:
        """See ``Source``."""
        try:
            step = _rows_per_shard(self._shape)
            for first, block in arrays.packed_idx_rows(self.path, self._limits, step):
                yield ArrayShard(self.name, first, len(block), block)
        except DataError as error:
            yield FileShard(((self.name, UnreadableImageError(str(error))),))
        if not self._shape[0]:
            yield FileShard((_without_pictures(self.name),))


def _rows_per_shard(shape: tuple[int, ...]) -> int:
    return max(1, min(SHARD_PICTURES, SHARD_BYTES // math.prod(shape[1:])))


def _grouped(source: str, found: Iterable[tuple[str, Place]]) -> Iterator[tuple[Entry[Place], ...]]:
    """Yield the entries of each shard.

    One more entry says that the source cannot be read on, or that it has no pictures.
    """
    group: list[Entry[Place]] = []
    size = seen = 0
    try:
        for entry in found:
            seen += 1
            group.append(entry)
            size += _bytes_of(entry[1])
            if len(group) == SHARD_PICTURES or size >= SHARD_BYTES:
                yield tuple(group)
                group, size = [], 0
        if not seen:
            group.append(_without_pictures(source))
    except (DataError, OSError) as error:
        group.append((source, UnreadableImageError(str(error))))
    if group:
        yield tuple(group)


def _inside(archive: str, members: Iterable[Member]) -> Iterator[Entry[Extent | bytes]]:
    for name, place in members:
        yield f"{archive}#{name}", place


def _bytes_of(place: object) -> int:
    if isinstance(place, Extent):
        return place.size
    return len(place) if isinstance(place, bytes) else 0


def _without_pictures(source: str) -> tuple[str, ImageError]:
    suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
    return source, UnreadableImageError(f"{source} holds no pictures ({suffixes})")
