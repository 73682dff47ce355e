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
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from inkdigits.batch.archives import Extent
from inkdigits.batch.arrays import NpyRows
from inkdigits.errors import ImageError
from inkdigits.log.tables import Columns, Schema
from inkdigits.types import Picture, Pixels

if TYPE_CHECKING:
    from inkdigits.decision.prediction import Prediction, Reader

# A picture that cannot be read has a source, a model version and an error.
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
    content: Sequence[Place] | Pixels | NpyRows

    def pictures(self) -> Iterator[Picture | ImageError]:
        """Yield the pictures, read as they are asked for, or the errors in their places."""
        content = self.content
        for place in content.read() if isinstance(content, NpyRows) else content:
            try:
                yield place.read() if isinstance(place, Extent) else place
            except ImageError as error:
                yield error


def read_shard(reader: Reader, shard: Shard, start: int = 0, stop: int | None = None) -> Columns:
    """Return the rows of a shard's pictures from ``start`` to before ``stop``.

    >>> import inkdigits
    >>> shard = Shard(["a.png"], [ImageError("damaged")])
    >>> read_shard(inkdigits.load(), shard)["error"]
    ['damaged']
    """
    answers: list[Prediction | ImageError] = []
    pictures = islice(shard.pictures(), start, stop)
    for batch in grouped(pictures, BATCH_PICTURES, BATCH_BYTES, bytes_of):
        sound = [picture for picture in batch if not isinstance(picture, ImageError)]
        readings = iter(reader.predict_batch(sound, on_error="return"))
        answers += [one if isinstance(one, ImageError) else next(readings) for one in batch]
    columns = {name: [getattr(answer, name, None) for answer in answers] for name in SCHEMA}
    # What is rejected has no answer; what it is closest to has a column of its own.
    columns["closest"] = columns["digit"]
    columns["digit"] = [getattr(answer, "answer", None) for answer in answers]
    columns["source"] = [_as_text(name) for name in shard.names[start:stop]]
    columns["model_version"] = [reader.model_version] * len(answers)
    columns["error"] = [
        _as_text(str(answer)) if isinstance(answer, ImageError) else None for answer in answers
    ]
    return columns


def _as_text(name: str) -> str:
    """Return text that UTF-8 can hold; bytes that are not text become backslash escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


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
