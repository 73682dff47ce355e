"""Shards: consecutive pictures, and the one function that reads them.

A shard says where its pictures are, and workers read and unpack them. Only what is compressed as a
whole cannot be read from the middle, so those shards carry the pictures.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from inkdigits.batch.storage import AT_ONCE, READ_AHEAD
from inkdigits.decision.hints import ReadOptions
from inkdigits.decision.prediction import Box, Reader
from inkdigits.errors import HintError, ImageError
from inkdigits.log.tables import Columns, Schema
from inkdigits.types import Picture, Pixels

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
BATCH_PICTURES: Final = 32  # per pass of the network; activations of 128 leave the caches
_EMPTY_ZIP: Final = b"PK\5\6" + bytes(18)  # the end of an archive without members


class Extent(NamedTuple):  # A tuple is sent to a worker in half the time of a dataclass.
    """The place of a picture in a file: a member of an archive, or a row of an array."""

    file: Path
    start: int
    size: int  # bytes of the picture
    shape: tuple[int, ...] | None = None  # of an array of uint8; None is an encoded picture
    member: zipfile.ZipInfo | None = None  # of a ZIP archive

    def read(self, file: Any) -> bytes | Pixels | ImageError:
        """Return the picture from its open file, or why it cannot be had; OSError is the file's."""
        try:
            if self.member is None:
                file.seek(self.start)
                content = file.read(self.size)
            else:
                # The archive's directory is not read: it may be longer than a shard.
                archive = zipfile.ZipFile(io.BytesIO(_EMPTY_ZIP))
                archive.fp = file
                with archive.open(self.member) as member:
                    # So many are unpacked, even if the member holds more. It checks the CRC.
                    content = member.read(self.size)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            return ImageError(f"the picture cannot be unpacked: {error}")
        if len(content) != self.size:
            return ImageError(
                "the picture differs from what its file said of it when the run began"
            )
        return np.frombuffer(content, "u1").reshape(self.shape) if self.shape else content


Place: TypeAlias = "Path | Extent | bytes | Pixels | ImageError"
"""Where a picture is, the picture itself, or why there is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """Consecutive pictures. They are sent to a worker, which reads them."""

    names: Sequence[str]
    content: Sequence[Any]  # a Place each
    boxes: Sequence[Sequence[Box]] | None = None  # the regions of each; None reads whole pictures

    def pictures(self) -> Iterator[Picture | ImageError]:
        """Yield the pictures, or the errors in their places; OSError is of a file that is gone."""
        # By the file they are in; others by whether they are objects of a store.
        for where, places in groupby(
            self.content, lambda place: getattr(place, "file", hasattr(place, "fs"))
        ):
            if where is False:
                yield from places
            elif where is True:
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    yield from pool.map(_fetched, places)
            else:
                with where.open("rb", READ_AHEAD) as file:
                    yield from (place.read(file) for place in places)

    def singles(self) -> Iterator[Shard]:
        """Yield each picture as a shard."""
        for one in (slice(i, i + 1) for i in range(len(self.names))):
            yield Shard(self.names[one], self.content[one], self.boxes and self.boxes[one])

    def rows(self) -> tuple[list[str], list[str | None]]:
        """Return the source and the region of each row of the table."""
        names, regions = list[str](), list[str | None]()
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
    pictures, answers = shard.pictures(), list[Any]()
    sources, regions = shard.rows()
    if hints is None:
        schema, read = SCHEMA, "digit"
        while batch := list(islice(pictures, BATCH_PICTURES)):
            sound = [picture for picture in batch if not isinstance(picture, ImageError)]
            readings = iter(reader.predict_batch(sound, on_error="return"))
            answers += [one if isinstance(one, ImageError) else next(readings) for one in batch]
    else:
        schema, read = NUMBER_SCHEMA, "text"
        all_boxes: Sequence[Any] = shard.boxes or [None] * len(shard.names)
        for picture, boxes in zip(pictures, all_boxes, strict=True):
            answers += _numbers(reader, picture, boxes, hints)
    columns: Columns = {name: [getattr(one, name, None) for one in answers] for name in schema}
    # What is rejected has no answer; what it is closest to has a column of its own.
    columns["closest"] = columns[read]
    columns[read] = [getattr(one, "answer", None) for one in answers]
    columns["source"] = sources
    if hints is not None:
        columns["region"] = regions
    columns["model_version"] = [reader.model_version] * len(answers)
    columns["error"] = [_text(str(one)) if isinstance(one, Exception) else None for one in answers]
    return columns


def _fetched(place: Path) -> bytes | ImageError:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return ImageError(f"there is no {place}")


def _text(text: str) -> str:
    """Return text that UTF-8 can hold; bytes that are not text become backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _numbers(
    reader: Reader, picture: Any, boxes: Sequence[Box] | None, hints: ReadOptions
) -> Sequence[object]:
    """Return the numbers in the regions of a picture, or the errors in their places."""
    if boxes is not None and not boxes:
        return [HintError("--regions has no region for this picture")]
    if isinstance(picture, ImageError):
        return [picture] * len(boxes or [()])
    try:
        if boxes is None:
            return [reader.read(picture, **hints)]
        return reader.read_regions(picture, boxes, **hints)
    except (ImageError, HintError) as error:
        if len(boxes or [()]) == 1:
            return [error]
    return [one for box in boxes or () for one in _numbers(reader, picture, [box], hints)]
