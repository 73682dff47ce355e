"""Shards: consecutive pictures of a source, and the one function that reads them.

A shard says where its pictures are instead of holding them. So the workers decode and unpack, and
the shards that wait for them are small. What is compressed as a whole with gzip cannot be read
from the middle, so those shards carry the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from inkdigits.batch.archives import Extent
from inkdigits.batch.arrays import Rows
from inkdigits.decision.hints import ReadOptions
from inkdigits.errors import HintError, ImageError
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
    for name in (
        *("source", "region", "text", "closest", "confidence", "decision", "reason"),
        *("model_version", "error"),
    )
}

# Pictures per pass of the network. 16 to 64 are as fast as each other, and 128 is 3 to 5 % slower:
# its activations leave the processor's caches (docs/experiments/).
BATCH_PICTURES: Final = 32
# A batch ends earlier where its encoded pictures have this many bytes.
BATCH_BYTES: Final = 32 * 2**20

Place: TypeAlias = "Path | Extent | bytes | ImageError"
"""Where an encoded picture is, its bytes, or why there are none."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Consecutive pictures of one source. It is sent to a worker, which reads them."""

    names: Sequence[str]
    content: Sequence[Place] | Pixels | Rows
    boxes: Sequence[Sequence[Box]] | None = None
    """The regions of each picture in which a number is read; None reads whole pictures."""

    def pictures(self) -> Iterator[Picture | ImageError]:
        """Yield the pictures, read as they are asked for, or the errors in their places."""
        content = self.content
        for place in content.read() if isinstance(content, Rows) else content:
            try:
                yield place.read() if isinstance(place, Extent) else place
            except ImageError as error:
                yield error

    def rows(self, start: int = 0, stop: int | None = None) -> tuple[list[str], list[str | None]]:
        """Return the source and the region of each row of the table."""
        none: list[Sequence[Box]] = [()] * len(self.names)
        names: list[str] = []
        regions: list[str | None] = []
        for name, boxes in list(zip(self.names, self.boxes or none, strict=True))[start:stop]:
            places = [" ".join(map(str, box)) for box in boxes]
            names += [_text(name)] * max(1, len(places))
            regions += places or [None]
        return names, regions


def read_shard(
    reader: Reader,
    shard: Shard,
    start: int = 0,
    stop: int | None = None,
    hints: ReadOptions | None = None,
) -> Columns:
    """Return the rows of a shard's pictures from ``start`` to before ``stop``.

    ``hints`` are for numbers; without any, each picture is one digit.

    >>> import inkdigits
    >>> shard = Shard(["a.png"], [ImageError("damaged")])
    >>> read_shard(inkdigits.load(), shard)["error"]
    ['damaged']
    """
    pictures = islice(shard.pictures(), start, stop)
    if hints is None:
        answers = list(_digits(reader, pictures))
    else:
        boxes = [None] * len(shard.names) if shard.boxes is None else shard.boxes
        pairs = zip(pictures, boxes[start:stop], strict=True)
        answers = [one for pair in pairs for one in _numbers(reader, *pair, hints)]
    schema = SCHEMA if hints is None else NUMBER_SCHEMA
    columns: Columns = {name: [getattr(one, name, None) for one in answers] for name in schema}
    # What is rejected has no answer; what it is closest to has a column of its own.
    read = "digit" if hints is None else "text"
    columns["closest"] = columns[read]
    columns[read] = [getattr(one, "answer", None) for one in answers]
    columns["source"], regions = shard.rows(start, stop)
    if hints is not None:
        columns["region"] = regions
    columns["model_version"] = [reader.model_version] * len(answers)
    columns["error"] = [_text(str(one)) if isinstance(one, Exception) else None for one in answers]
    return columns


def _text(text: str) -> str:
    """Return text that UTF-8 can hold; bytes that are not text become backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _digits(reader: Reader, pictures: Iterable[Picture | ImageError]) -> Iterator[object]:
    for batch in grouped(pictures, BATCH_PICTURES, BATCH_BYTES, bytes_of):
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
    items: Iterable[Item], most: int, most_bytes: int, size: Callable[[Item], int]
) -> Iterator[list[Item]]:
    """Yield the items in lists, each ended by a number of items or of bytes.

    >>> list(grouped(["a", "bcd", "e", "f", "g"], 2, 3, len))
    [['a', 'bcd'], ['e', 'f'], ['g']]
    """
    group: list[Item] = []
    held = 0
    for item in items:
        group.append(item)
        held += size(item)
        if len(group) == most or held >= most_bytes:
            yield group
            group, held = [], 0
    if group:
        yield group


def bytes_of(place: object) -> int:
    """Return the size of an encoded picture, or 0 where it is unknown.

    >>> bytes_of(b"png"), bytes_of(Path("a.png"))
    (3, 0)
    """
    if isinstance(place, Extent):
        return place.size
    return len(place) if isinstance(place, bytes) else 0
