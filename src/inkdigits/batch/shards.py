"""Shards: consecutive pictures of a source, and the one function that reads them.

A shard says where its pictures are, and workers read and unpack them. Only what is compressed as a
whole cannot be read from the middle, so those shards carry the pictures.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from inkdigits.batch.storage import contents, filesystem, open_file
from inkdigits.decision.hints import ReadOptions
from inkdigits.errors import BatchError, HintError, ImageError, UnreadableImageError
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
# What reads a member of a ZIP archive; the rest of its ZipInfo takes as long to send as to read.
MEMBER: Final = (
    *("orig_filename", "header_offset", "compress_type", "flag_bits"),
    *("CRC", "compress_size", "file_size"),
)
# The end of a ZIP archive without members.
_EMPTY_ZIP: Final = b"PK\5\6" + bytes(18)


@dataclass(frozen=True, slots=True)
class Extent:
    """The place of a picture in a file: a member of an archive, or a row of an array."""

    file: Path
    start: int
    size: int  # bytes of the picture
    shape: tuple[int, ...] | None = None  # of an array of uint8; None is an encoded picture
    member: tuple[Any, ...] | None = None  # of a ZIP archive; see MEMBER

    def read(self, file: Any) -> bytes | Pixels | UnreadableImageError:
        """Return the picture, or why it cannot be had. OSError is of the file, not of the picture.

        ``file`` is the open file, or a ZipFile of it for a member.
        """
        try:
            if self.member is None:
                file.seek(self.start)
                content = file.read(self.size)
            else:
                info = zipfile.ZipInfo()
                for name, value in zip(MEMBER, self.member, strict=True):
                    setattr(info, name, value)
                with file.open(info) as member:
                    # So many are unpacked, even if the member holds more. It checks the CRC.
                    content = member.read(self.size)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
            return UnreadableImageError(f"the picture cannot be unpacked: {error}")
        if len(content) != self.size:
            return UnreadableImageError(
                "the picture differs from what its file said of it when the run began"
            )
        return content if self.shape is None else np.frombuffer(content, "u1").reshape(self.shape)


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
        """Yield the pictures, read as they are asked for, or the errors in their places.

        A BatchError names a file that can no longer be read.
        """
        for file, group in groupby(self.content, lambda place: getattr(place, "file", None)):
            places: list[Any] = list(group)
            yield from _loose(places) if file is None else _of_file(file, places)

    def halves(self) -> Iterator[Shard]:
        """Yield the first and the second half."""
        middle = len(self.names) // 2
        for half in (slice(middle), slice(middle, None)):
            yield Shard(self.names[half], self.content[half], self.boxes and self.boxes[half])

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


def _of_file(file: Any, places: list[Any]) -> Iterator[Picture | ImageError]:
    try:
        with open_file(file) as opened:
            source: Any = opened
            if places[0].member:
                # The members are the shard's, so the file's directory is not read.
                source = zipfile.ZipFile(io.BytesIO(_EMPTY_ZIP))
                source.fp = opened
            yield from (place.read(source) for place in places)
    except OSError as error:
        why = error.strerror or error
        raise BatchError(f"{file} can no longer be read: {why}") from error


def _loose(places: Sequence[Any]) -> Iterator[Picture | ImageError]:
    """Yield pictures that are in no archive. Objects of a store are fetched many at once."""
    for store, group in groupby(places, filesystem):
        found = list(group)
        for place, one in zip(found, contents(found) if store else found, strict=True):
            is_missing = isinstance(one, FileNotFoundError)
            yield UnreadableImageError(f"there is no {place}") if is_missing else one


def _text(text: str) -> str:
    """Return text that UTF-8 can hold; bytes that are not text become backslash escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _numbers(
    reader: Reader,
    picture: Picture | ImageError,
    boxes: Sequence[Box] | None,
    hints: ReadOptions,
) -> Sequence[object]:
    """Return the numbers in the regions of a picture; one that cannot be read fails in each."""
    error: Any = picture
    if boxes is not None and not boxes:
        error = HintError("--regions has no region for this picture")
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
