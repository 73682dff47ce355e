"""Consecutive pictures of a source, as a worker process is given them.

A chunk says where its pictures are instead of holding them, so that decoding and unpacking are the
workers' work and what waits for them is small. Only what can't be read from the middle, whatever
is compressed as a whole with gzip, is carried by its chunks.
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

Where = TypeVar("Where")
Found: TypeAlias = "tuple[str, Where | ImageError]"
"""A picture's name, and where it is or why it can't be had."""


class Chunk(Protocol):
    """Consecutive pictures of one source. Sent to a worker, which reads them."""

    def key(self) -> str:
        """Tells this chunk from others, and from itself after the source has changed."""

    def names(self) -> list[str]:
        """What each picture is called in the results."""

    def pictures(self) -> Iterator[Picture | ImageError]:
        """The pictures, read as they are asked for; an error in the place of what can't be had."""


@dataclass(frozen=True, slots=True)
class Files:
    """A chunk of encoded pictures, each a file; ``found`` has their names and paths."""

    found: tuple[Found[Path], ...]

    def key(self) -> str:
        """See ``Chunk``."""
        return _digest(self.found)

    def names(self) -> list[str]:
        """See ``Chunk``."""
        return [as_text(name) for name, _ in self.found]

    def pictures(self) -> Iterator[Picture | ImageError]:
        """See ``Chunk``."""
        for _, where in self.found:
            yield where


@dataclass(frozen=True, slots=True)
class Members:
    """A chunk of encoded pictures in an archive.

    Attributes:
        archive: the archive's file.
        found: their names, and where they lie in the archive, or themselves.
    """

    archive: Path
    found: tuple[Found[Extent | bytes], ...]

    def key(self) -> str:
        """See ``Chunk``."""
        return _digest(self.found)

    def names(self) -> list[str]:
        """See ``Chunk``."""
        return [as_text(name) for name, _ in self.found]

    def pictures(self) -> Iterator[Picture | ImageError]:
        """See ``Chunk``."""
        with self.archive.open("rb") as file:
            for _, where in self.found:
                try:
                    yield where.read(file) if isinstance(where, Extent) else where
                except ImageError as error:
                    yield error
                except OSError as error:
                    yield UnreadableImageError(f"the archive can't be read: {error.strerror}")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A chunk of an array's pictures.

    Attributes:
        source: the array's name.
        first: number of its first picture.
        count: how many.
        content: (count, H, W) uint8, or the file that holds them among others.
    """

    source: str
    first: int
    count: int
    content: ArrayFile | npt.NDArray[np.uint8]

    def key(self) -> str:
        """See ``Chunk``."""
        return f"{self.source}#{self.first}+{self.count}"

    def names(self) -> list[str]:
        """See ``Chunk``."""
        source = as_text(self.source)
        return [f"{source}#{i}" for i in range(self.first, self.first + self.count)]

    def pictures(self) -> Iterator[Picture | ImageError]:
        """See ``Chunk``."""
        if isinstance(self.content, ArrayFile):
            yield from self.content.rows(self.first, self.count)
        else:
            yield from self.content


def as_text(name: str) -> str:
    """A name that UTF-8 can hold; bytes in it that aren't text become backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _digest(found: Iterable[tuple[str, object]]) -> str:
    digest = hashlib.sha256()
    for name, where in found:
        what = zlib.crc32(where) if isinstance(where, bytes) else repr(where)
        digest.update(json.dumps([name, what]).encode())
    return digest.hexdigest()
