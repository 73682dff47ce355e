"""Shards: consecutive pictures of a source, as a worker process is given them.

A shard says where its pictures are instead of holding them. So the workers decode and unpack, and
the shards that wait for them are small. Data compressed as a whole with gzip cannot be read from
the middle, so its shards carry the pictures.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from inkdigits.batch.archives import Extent
from inkdigits.batch.arrays import ArrayFile
from inkdigits.errors import ImageError, UnreadableImageError
from inkdigits.types import Picture

Place = TypeVar("Place")
Entry: TypeAlias = "tuple[str, Place | ImageError]"
"""A picture's name, and its place or why there is none."""


class Shard(Protocol):
    """Consecutive pictures of one source. It is sent to a worker, which reads them."""

    def key(self) -> str:
        """Return what tells this shard from others, and from itself once its source changed."""

    def names(self) -> list[str]:
        """Return the name of each picture in the results."""

    def pictures(self) -> Iterator[Picture | ImageError]:
        """Yield the pictures, read as they are asked for, or the errors in their places."""


@dataclass(frozen=True, slots=True)
class FileShard:
    """Encoded pictures, each a file; ``entries`` has their names and paths."""

    entries: tuple[Entry[Path], ...]

    def key(self) -> str:
        """See ``Shard``."""
        return _digest(self.entries)

    def names(self) -> list[str]:
        """See ``Shard``."""
        return [as_text(name) for name, _ in self.entries]

    def pictures(self) -> Iterator[Picture | ImageError]:
        """See ``Shard``."""
        for _, place in self.entries:
            yield place


@dataclass(frozen=True, slots=True)
class ArchiveShard:
    """Encoded pictures in an archive.

    Attributes:
        archive: the archive's file.
        entries: their names, and their places in the archive or their bytes.
    """

    archive: Path
    entries: tuple[Entry[Extent | bytes], ...]

    def key(self) -> str:
        """See ``Shard``."""
        return _digest(self.entries)

    def names(self) -> list[str]:
        """See ``Shard``."""
        return [as_text(name) for name, _ in self.entries]

    def pictures(self) -> Iterator[Picture | ImageError]:
        """See ``Shard``."""
        with self.archive.open("rb") as file:
            for _, place in self.entries:
                try:
                    yield place.read(file) if isinstance(place, Extent) else place
                except ImageError as error:
                    yield error
                except OSError as error:
                    yield UnreadableImageError(f"the archive cannot be read: {error.strerror}")


@dataclass(frozen=True, slots=True, eq=False)
class ArrayShard:
    """Pictures of an array.

    Attributes:
        source: the array's name.
        first: the number of the first picture, from 0.
        count: how many pictures.
        content: (count, H, W) uint8, or the file that holds them among others.
    """

    source: str
    first: int
    count: int
    content: ArrayFile | npt.NDArray[np.uint8]

    def key(self) -> str:
        """See ``Shard``."""
        return f"{self.source}#{self.first}+{self.count}"

    def names(self) -> list[str]:
        """See ``Shard``."""
        source = as_text(self.source)
        return [f"{source}#{i}" for i in range(self.first, self.first + self.count)]

    def pictures(self) -> Iterator[Picture | ImageError]:
        """See ``Shard``."""
        if isinstance(self.content, ArrayFile):
            yield from self.content.rows(self.first, self.count)
        else:
            yield from self.content


def as_text(name: str) -> str:
    r"""Return a name that UTF-8 can hold: bytes that are not text become backslash escapes.

    >>> print(as_text("3\udcff.png"))
    3\udcff.png
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _digest(entries: Iterable[tuple[str, object]]) -> str:
    digest = hashlib.sha256()
    for name, place in entries:
        content = zlib.crc32(place) if isinstance(place, bytes) else repr(place)
        digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()
