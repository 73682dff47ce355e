"""Shards: consecutive pictures of a source, and the one function that reads them.

A shard says where its pictures are, and workers read and unpack them. Only what is compressed as a
whole cannot be read from the middle, so those shards carry the pictures.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import numpy as np

from inkdigits.batch.storage import ranges
from inkdigits.decision.hints import ReadOptions
from inkdigits.errors import HintError, ImageError, UnreadableImageError
from inkdigits.log.tables import Columns, Schema
from inkdigits.types import Picture, Pixels

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Box, Reader

# What cannot be read has a source, a model version and an error.
SCHEMA: Final[Schema] = {
    "source": "text",
    "digit": "int8",
    "closest": "int8",
    "confidence": "float64",
    "decision": "text",
    "reason": "text",
    "novelty": "float64",
    "model_version": "text",
    "error": "text",
}
# A region is "left top width height" in pixels; None is the whole picture.
NUMBER_SCHEMA: Final[Schema] = {
    name: "float64" if name == "confidence" else "text"
    for name in ("source", "region", "text", *list(SCHEMA)[2:])
    if name != "novelty"
}

# Pictures per pass of the network. 16 to 64 are as fast as each other, and 128 is 3 to 5 % slower:
# its activations leave the processor's caches (docs/experiments/).
BATCH_PICTURES: Final = 32
# A batch ends earlier where its encoded pictures have this many bytes.
BATCH_BYTES: Final = 32 * 2**20

# PKWARE, "APPNOTE.TXT, .ZIP File Format Specification", 6.3, section 4.3.7.
_ZIP_LOCAL: Final = struct.Struct("<4s5H3L2H")
_LARGEST_FILE: Final = 2**48  # in bytes

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Extent:
    """The place of a picture: a member of an archive, a row of an array, an object in a store."""

    file: Path
    offset: int  # of its ZIP header or else of its bytes
    packed: int  # bytes in the file
    size: int  # bytes of the picture
    crc: int | None = None  # None outside ZIP archives
    deflated: bool = False
    shape: tuple[int, ...] | None = None  # of an array of uint8; None is an encoded picture

    def read(self, read: Callable[[int, int], bytes]) -> bytes | Pixels:
        """Return the picture by what ``ranges`` returns for the file.

        UnreadableImageError is the picture's fault; OSError is not, the file cannot be read now.
        """
        try:
            content = read(self._start(read), self.packed)
            if self.deflated:
                # One byte more than declared: a member that holds more is noticed, not unpacked.
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        except (FileNotFoundError, zlib.error) as error:
            raise UnreadableImageError(f"the picture cannot be unpacked: {error}") from error
        if len(content) != self.size or self.crc not in (None, zlib.crc32(content)):
            raise UnreadableImageError(
                "the picture differs from what its file said of it when the run began"
            )
        return content if self.shape is None else np.frombuffer(content, "u1").reshape(self.shape)

    def _start(self, read: Callable[[int, int], bytes]) -> int:
        if self.crc is None:
            return self.offset
        header = read(self.offset, _ZIP_LOCAL.size) if 0 <= self.offset < _LARGEST_FILE else b""
        if len(header) < _ZIP_LOCAL.size or header[:4] != b"PK\x03\x04":
            raise UnreadableImageError("the archive has no member where its directory says")
        *_, name, extra = _ZIP_LOCAL.unpack(header)
        return self.offset + _ZIP_LOCAL.size + int(name + extra)


Place: TypeAlias = "Path | Extent | bytes | Pixels | ImageError"
"""Where a picture is, the picture itself, or why there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Consecutive pictures of one source. It is sent to a worker, which reads them."""

    names: Sequence[str]
    content: Sequence[Place]
    boxes: Sequence[Sequence[Box]] | None = None
    """The regions of each picture in which a number is read; None reads whole pictures."""

    def pictures(self) -> Iterator[Picture | ImageError]:
        """Yield the pictures, read as they are asked for, or the errors in their places."""
        for (file, _), run in groupby(enumerate(self.content), _run):
            places: list[Any] = [place for _, place in run]
            with ranges(file) if file else nullcontext() as read:
                if read and places[0].shape is not None:
                    read = _at_once(read, places[0].offset, len(places) * places[0].size)
                yield from (_picture(place, read) for place in places)

    def singly(self) -> Iterator[Shard]:
        """Yield a shard for each picture."""
        for i in range(len(self.names)):
            one = slice(i, i + 1)
            yield Shard(self.names[one], self.content[one], self.boxes and self.boxes[one])

    def rows(self) -> tuple[list[str], list[str | None]]:
        """Return the source and the region of each row of the table."""
        names: list[str] = []
        regions: list[str | None] = []
        for name, boxes in zip(self.names, self.boxes or [()] * len(self.names), strict=True):
            places = [" ".join(map(str, box)) for box in boxes]
            names += [_text(name)] * max(1, len(places))
            regions += places or [None]
        return names, regions


def read_shard(reader: Reader, shard: Shard, hints: ReadOptions | None = None) -> Columns:
    """Return the rows of a shard. ``hints`` are for numbers; without any, a picture is one digit.

    >>> import inkdigits
    >>> shard = Shard(["a.png"], [ImageError("damaged")])
    >>> read_shard(inkdigits.load(), shard)["error"]
    ['damaged']
    """
    pictures = shard.pictures()
    schema, read = (SCHEMA, "digit") if hints is None else (NUMBER_SCHEMA, "text")
    if hints is None:
        answers = list(_digits(reader, pictures))
    else:
        boxes: Sequence[Any] = shard.boxes or [None] * len(shard.names)
        pairs = zip(pictures, boxes, strict=True)
        answers = [one for pair in pairs for one in _numbers(reader, *pair, hints)]
    columns: Columns = {name: [getattr(one, name, None) for one in answers] for name in schema}
    # What is rejected has no answer; what it is closest to has a column of its own.
    columns["closest"] = columns[read]
    columns[read] = [getattr(one, "answer", None) for one in answers]
    columns["source"], regions = shard.rows()
    if hints is not None:
        columns["region"] = regions
    columns["model_version"] = [reader.model_version] * len(answers)
    columns["error"] = [_text(str(one)) if isinstance(one, Exception) else None for one in answers]
    return columns


def _run(numbered: tuple[int, Place]) -> tuple[Path | None, object]:
    """Return what is the same for the pictures of a file, or for rows that follow each other."""
    number, place = numbered
    if not isinstance(place, Extent):
        return None, None
    row = place.shape and (place.shape, place.offset - number * place.size)
    return place.file, row


def _at_once(
    read: Callable[[int, int], bytes], begin: int, size: int
) -> Callable[[int, int], bytes]:
    """Return what reads from a range, which one request gets when its first part is needed."""
    whole = cache(partial(read, begin, size))
    return lambda start, length: whole()[start - begin : start - begin + length]


def _picture(place: Place, read: Any) -> Picture | ImageError:
    try:
        return place.read(read) if isinstance(place, Extent) else place
    except ImageError as error:
        return error


def _text(text: str) -> str:
    """Return text that UTF-8 can hold; bytes that are not text become backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _digits(reader: Reader, pictures: Iterable[Picture | ImageError]) -> Iterator[object]:
    for batch in grouped(pictures, BATCH_PICTURES, BATCH_BYTES, lambda one: one):
        sound = [picture for picture in batch if not isinstance(picture, ImageError)]
        readings = iter(reader.predict_batch(sound, on_error="return"))
        yield from (one if isinstance(one, ImageError) else next(readings) for one in batch)


def _numbers(
    reader: Reader,
    picture: Picture | ImageError,
    boxes: Sequence[Box] | None,
    hints: ReadOptions,
) -> Sequence[object]:
    """Return the numbers in the regions of a picture; one that cannot be read fails in each."""
    error: Any = picture
    if boxes is not None and not boxes:
        error = HintError("no region is given for this picture")
    elif not isinstance(picture, ImageError):
        try:
            if boxes is None:
                return [reader.read(picture, **hints)]
            return reader.read_regions(picture, boxes, **hints)
        except ImageError as failed:
            error = failed
        except HintError as failed:
            if boxes and len(boxes) > 1:  # Only some of them are outside the picture.
                return [one for box in boxes for one in _numbers(reader, picture, [box], hints)]
            error = failed
    return [error] * len(boxes or [()])


def grouped(
    items: Iterable[Item], most: int, most_bytes: int, place: Callable[[Item], object]
) -> Iterator[list[Item]]:
    """Yield the items in lists, each ended by a number of items or, where known, of bytes.

    >>> list(grouped([b"a", b"bcd", b"e", b"f", b"g"], 2, 3, lambda one: one))
    [[b'a', b'bcd'], [b'e', b'f'], [b'g']]
    """
    group: list[Item] = []
    held = 0
    for item in items:
        group.append(item)
        of = place(item)
        held += len(of) if isinstance(of, bytes) else getattr(of, "size", 0)
        if len(group) == most or held >= most_bytes:
            yield group
            group, held = [], 0
    if group:
        yield group
