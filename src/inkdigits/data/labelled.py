"""Labelled pictures from wherever people keep them, by one loader for every command.

A source is one of:

- a folder or an archive whose folders are labels (``0`` to ``9`` and ``none``), or whose file
  names hold the label by a pattern;
- a table (``.csv``, ``.jsonl``, ``.parquet``) with the columns ``path`` and ``label``, or one that
  ``inkdigits history export`` wrote;
- MNIST's IDX files: that of the pictures, or a folder with ``MNIST/raw``, which stands for the test
  part;
- the URL of the prediction log's database, of which the reviewed predictions are read.

Nothing here needs PyTorch. What cannot be read is named and left out; a label that cannot be is an
error with its place.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from inkdigits.batch.shards import Place, Shard
from inkdigits.batch.sources import IDX_NAME, Source, shards_of
from inkdigits.batch.storage import told_as_batch_errors
from inkdigits.errors import DataError, ImageError
from inkdigits.ink.normalize import find, is_certain
from inkdigits.ink.segment import Segmenter
from inkdigits.log.export import reviewed_records
from inkdigits.log.tables import read_rows
from inkdigits.model.artifact import SEGMENTER, read_network
from inkdigits.model.backends import onnx_function
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL, Ink, Labels, Mask, Picture, Report

HELD_BACK: Final = 0.2
"""The share of labelled pictures that is kept apart to measure with, by default."""

_TABLES: Final = (".csv", ".jsonl", ".parquet")
_ALLOWED: Final = f"allowed are 0 to 9, and {NO_DIGIT_LABEL} for no digit"
_TEST_PART: Final = "MNIST/raw/t10k-images-idx3-ubyte"


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A labelled picture, which is not read yet."""

    name: str  # its path, or its place in an archive or table
    source: str  # what the user named
    place: Place  # where it is; ink for what was logged or is an array
    label: int  # 0 to 9, or NO_DIGIT
    writer: str | None = None  # who wrote it, where that is known
    at: str | None = None  # when it was written, as ISO 8601, where that is known

    @told_as_batch_errors()
    def picture(self) -> Picture:
        """Return the picture as a reader takes it; an ImageError if it cannot be read."""
        (picture,) = Shard([self.name], [self.place]).pictures()
        if isinstance(picture, ImageError):
            raise picture
        return picture


@dataclass(slots=True, eq=False)
class Labelled:
    """Labelled pictures of some sources, and what was left out."""

    examples: list[Example] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """The name of what was left out, and why."""

    def __len__(self) -> int:
        return len(self.examples)

    def inks(
        self,
        segmenter: Segmenter | None = None,
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> LabelledInks:
        """Return all pictures as ink; those that cannot be read, or are blank, are left out.

        ``segmenter`` is that of the model that reads the inks; by default the shipped one.
        ``progress`` is told how many are done, and how many there are.
        """
        segmenter = segmenter or onnx_function(read_network(SEGMENTER), threads=1)
        inks: list[Ink] = []
        kept: list[Example] = []
        certain: list[bool] = []
        left_out = list(self.left_out)
        for number, example in enumerate(self.examples):
            progress(number, len(self))
            try:
                ink, foreground = find(example.picture(), segmenter)
            except ImageError as error:
                left_out.append((example.name, str(error)))
                continue
            if ink.any():
                inks.append(ink)
                kept.append(example)
                certain.append(is_certain(foreground))
            else:
                left_out.append((example.name, "no ink was found in it"))
        if not inks:
            raise DataError(f"no picture can be used; {_named(left_out)}")
        labels = np.array([example.label for example in kept], dtype=np.int64)
        return LabelledInks(np.stack(inks), labels, kept, left_out, np.array(certain))


@dataclass(frozen=True, slots=True, eq=False)
class LabelledInks:
    """Labelled ink, in memory."""

    inks: Ink  # (N, 28, 28)
    labels: Labels  # (N,)
    examples: Sequence[Example]  # N
    left_out: Sequence[tuple[str, str]]
    certain: Mask  # (N,) whose ink lets them be accepted

    @property
    def writers(self) -> npt.NDArray[np.str_] | None:
        """(N,): who wrote each; None where that is not known of all, or all are of one."""
        names = [example.writer for example in self.examples]
        return np.array(names) if all(names) and len(set(names)) > 1 else None

    def digest(self) -> str:
        """Return the SHA-256 of the inks and labels, which identifies them."""
        return hashlib.sha256(self.inks.tobytes() + self.labels.tobytes()).hexdigest()

    def held_back(self, share: float = HELD_BACK) -> Mask:
        """Return which are kept apart to measure with, (N,) bool: about a share of them.

        Where at least two writers are known, whole writers are kept apart; else where times are,
        the latest; else it is decided by the digest of the ink, and equal pictures stay together.
        A writer with more than twice the share of the pictures is learned from.
        """
        digests = [hashlib.sha256(ink.tobytes()).hexdigest() for ink in self.inks]
        groups = [] if self.writers is None else self.writers.tolist()
        sizes = Counter(groups)
        fitting = [name for name, n in sizes.items() if n <= 2 * share * len(groups)]
        if fitting:
            order = sorted(fitting, key=lambda one: hashlib.sha256(one.encode()).hexdigest())
        else:
            groups, sizes = digests, Counter(digests)
            order = sorted(sizes)
            if all(example.at for example in self.examples):
                latest = {d: e.at or "" for d, e in zip(digests, self.examples, strict=True)}
                order.sort(key=lambda digest: latest[digest], reverse=True)
        chosen: set[str] = set()
        held = 0
        for group in order:
            # At least one group is left to learn from.
            if held >= share * len(groups) or len(chosen) + 1 == len(sizes):
                break
            chosen.add(group)
            held += sizes[group]
        return np.array([group in chosen for group in groups])


def read_labelled(
    sources: Sequence[str | Path], *, pattern: str | None = None, limit: int | None = None
) -> Labelled:
    """Return the labelled pictures of some sources, at most ``limit`` of each, evenly spaced.

    The module says what a source may be. ``pattern`` is a regular expression with the group
    ``label``, and maybe ``writer``, that is searched in the names in folders and archives.

    Raises:
        DataError: a source is missing, of no known kind, or empty; or a label cannot be.

    >>> read_labelled(["nowhere"])
    Traceback (most recent call last):
    inkdigits.errors.DataError: nowhere does not exist; name a folder, an archive or a table
    """
    found = Labelled()
    names = None if pattern is None else _compiled(pattern)
    for source in map(str, sources):
        own = list(_examples(source, names, found.left_out))
        if limit is not None and limit < len(own):
            # The first ones of a folder would all have the lowest label.
            own = [own[number * len(own) // limit] for number in range(limit)]
        found.examples += own
        if not own:
            raise DataError(f"{source} contains no labelled pictures; {_named(found.left_out)}")
    return found


def _label_of(text: object, where: str) -> int:
    """Return the label that a text stands for; ``where`` names its place in the error."""
    # A table's column of whole numbers with gaps is often written as 7.0.
    written = str(text).strip().lower().removesuffix(".0")
    if written in (NO_DIGIT_LABEL, str(NO_DIGIT)):
        return NO_DIGIT
    if len(written) == 1 and written in "0123456789":
        return int(written)
    raise DataError(f"{where}: the label is {text!r}; {_ALLOWED}")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise DataError(f"the pattern {pattern!r} is not a regular expression: {error}") from error
    if "label" not in found.groupindex:
        raise DataError(f"the pattern {pattern!r} has no group (?P<label>…)")
    return found


def _examples(
    source: str, pattern: re.Pattern[str] | None, left_out: list[tuple[str, str]]
) -> Iterator[Example]:
    if "://" in source:
        return _from_log(source, left_out)
    path = Path(source)
    if not path.exists():
        raise DataError(f"{source} does not exist; name a folder, an archive or a table")
    for test_part in (path / _TEST_PART, path / f"{_TEST_PART}.gz"):
        if test_part.is_file():
            return _from_idx(source, test_part)
    if path.suffix.lower() in _TABLES:
        return _from_table(source, path, left_out)
    if IDX_NAME.search(path.name.lower()):
        return _from_idx(source, path)
    return _from_names(source, path, pattern, left_out)


def _from_names(
    source: str, path: Path, pattern: re.Pattern[str] | None, left_out: list[tuple[str, str]]
) -> Iterator[Example]:
    if path.suffix.lower() == ".npy":
        raise DataError(f"{source} contains pictures but no labels")
    for name, place, _ in Source(path).pictures():
        inner = name.removeprefix(source).lstrip("/#")
        if isinstance(place, ImageError) and not inner:
            left_out.append((name, str(place)))
        elif pattern is None and "/" not in inner:
            reason = f"it is not in a folder that is named by a label; {_ALLOWED}"
            left_out.append((name, reason))
        else:
            label, writer = _by_name(name, inner, pattern)
            yield Example(name, source, place, _label_of(label, name), writer)


def _by_name(name: str, inner: str, pattern: re.Pattern[str] | None) -> tuple[str, str | None]:
    if pattern is None:
        return Path(inner).parent.name, None
    found = pattern.search(inner)
    if found is None:
        raise DataError(f"{name}: the pattern {pattern.pattern!r} is not in it")
    return found["label"], found.groupdict().get("writer")


def _idx_labels(path: Path) -> bytes:
    """Return the labels of an IDX file, one byte each; ``.gz`` is unpacked."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header, labels = file.read(8), bytes(file.read())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if header[:4] != b"\0\0\x08\x01" or len(labels) != int.from_bytes(header[4:], "big"):
        raise DataError(f"{path} is not an IDX file of labels, or its length is not the declared")
    return labels


def _from_idx(source: str, path: Path) -> Iterator[Example]:
    labels_path = path.with_name(re.sub(r"images([.-])idx3", r"labels\1idx1", path.name))
    if labels_path == path or not labels_path.is_file():
        raise DataError(f"{path} has no file of labels beside it ({labels_path.name})")
    labels = _idx_labels(labels_path)
    shards = shards_of([Source(path)])
    pictures = chain.from_iterable(zip(s.names, s.pictures(), strict=True) for s in shards)
    number = 0
    for number, (name, picture) in enumerate(pictures, 1):
        if number > len(labels):
            raise DataError(f"{labels_path} has {len(labels):,} labels, fewer than the pictures")
        place = picture if isinstance(picture, np.ndarray | ImageError) else b""
        yield Example(name, source, place, _label_of(labels[number - 1], name))
    if number < len(labels):
        raise DataError(f"{labels_path} has {len(labels):,} labels for {number:,} pictures")


def _from_table(source: str, path: Path, left_out: list[tuple[str, str]]) -> Iterator[Example]:
    without = 0
    for number, row in enumerate(read_rows(path), 1):
        where = f"{path}, row {number}"
        if "ink" in row and "label" in row:
            at = str(row.get("created_at") or "") or None
            without += not row["label"]
            if row["label"]:
                given = str(row["label"]), str(row.get("closest") or "")
                yield from _logged(source, where, row["ink"], *given, at, None, left_out)
            continue
        if not row.keys() >= {"path", "label"}:
            raise DataError(
                f"{path} has the columns {', '.join(row)}; needed are path and label, or those of "
                "inkdigits history export"
            )
        picture = path.parent / str(row["path"])
        writer, at = (
            None if row.get(name) in (None, "") else str(row[name]) for name in ("writer", "at")
        )
        label = _label_of(row["label"], where)
        yield Example(f"{where}: {row['path']}", source, picture, label, writer, at)
    if without:
        left_out.append((str(path), f"{without:,} rows have no feedback"))


def _from_log(url: str, left_out: list[tuple[str, str]]) -> Iterator[Example]:
    # A URL may hold a password, which must not get into a report.
    source = re.sub(r"//[^@/]*@", "//", url)
    for record in reviewed_records(url):
        where, at = f"prediction {record.id}", record.created_at.isoformat()
        ink, given = record.ink.tobytes(), (record.label or "", record.read or "")
        yield from _logged(source, where, ink, *given, at, record.owner, left_out)


def _logged(
    source: str,
    where: str,
    ink: str | bytes,
    label: str,
    read: str,
    at: str | None,
    writer: str | None,
    left_out: list[tuple[str, str]],
) -> Iterator[Example]:
    """Yield a logged prediction's example, or one for each digit of a number.

    After the digits that were read may stand the whole picture, for a label of one digit or none.
    """
    try:
        content = ink if isinstance(ink, bytes) else base64.b64decode(ink)
        inks = np.frombuffer(content, np.uint8).reshape(-1, 28, 28)
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"{where}: the ink is not 784 bytes per digit: {error}") from error
    is_number = len(label) > 1 and label.isdigit()
    texts = list(label) if is_number else [label]
    if len(inks) == len(read) + 1 > 1:
        inks = inks[-1:] if len(texts) == 1 else inks[:-1]
    if len(texts) != len(inks):
        reason = f"the label {label!r} does not fit the {len(inks)} digits that were found"
        left_out.append((where, reason))
        return
    for place, (text, one) in enumerate(zip(texts, inks, strict=True), 1):
        name = f"{where}, digit {place}" if is_number else where
        yield Example(name, source, one, _label_of(text, name), writer, at)


def _named(left_out: Iterable[tuple[str, str]]) -> str:
    """Return the first of what was left out, as a clause."""
    some = [why if why.startswith(name) else f"{name}: {why}" for name, why in left_out]
    return "; ".join(some[:3]) if some else "nothing was found in it"


def describe_left_out(left_out: Sequence[tuple[str, str]], report: Report, most: int = 10) -> None:
    """Tell ``report`` what was left out: a line each for the first ``most``, and how many more.

    >>> describe_left_out([("a.png", "it is truncated")], print)
    left out: a.png: it is truncated
    """
    for name, reason in left_out[:most]:
        report(f"left out: {name}: {reason}")
    if len(left_out) > most:
        report(f"left out: {len(left_out) - most:,} more")
