"""Digits by other hands than MNIST's: pen strokes and bitmaps of UCI's collections.

- Pen-Based Recognition of Handwritten Digits (E. Alpaydin and F. Alimoglu, UCI data set 81):
  ``pendigits/pendigits-orig.tra``, strokes of 30 writers in UNIPEN's format.
- Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, UCI data set 80):
  ``optdigits/optdigits-orig.tra``, bitmaps of 32x32 pixels by 30 writers, in no known order.

Both are CC BY 4.0. Only their training parts are read. Whoever has neither file trains without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from inkdigits.errors import DataError
from inkdigits.types import Doubles, Labels, Mask

HandPart: TypeAlias = Literal["train", "calibration"]
PENDIGITS, OPTDIGITS = "pendigits/pendigits-orig.tra", "optdigits/optdigits-orig.tra"
# Every fifth writer of the strokes, and the last fifth of the bitmaps, calibrates.
_CALIBRATION_EVERY, _CALIBRATION_SHARE = 5, 0.2
_BITMAP_SIDE = 32
# Digit, writer and number of strokes that are plainly another digit than their label: a 2, a 5, two
# sevens and a straight line. Found by looking at all of those that a network read otherwise.
_MISLABELLED = {
    ("3", "30", "79"),
    ("6", "24", "168"),
    ("3", "20", "78"),
    ("3", "20", "204"),
    ("7", "30", "186"),
}


@dataclass(frozen=True, slots=True)
class Hands:
    """Digits of both collections; each of the lists may be empty."""

    strokes: tuple[tuple[Doubles, ...], ...] = ()  # of each digit: lines (K, 2), y down
    stroke_labels: Labels = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    stroke_writers: Labels = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    bitmaps: Mask = field(default_factory=lambda: np.zeros((0, 32, 32), dtype=bool))  # True is ink
    bitmap_labels: Labels = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sha256: dict[str, str] = field(default_factory=dict)  # of the files, by their names

    def __len__(self) -> int:
        return len(self.strokes) + len(self.bitmaps)

    def one(self, index: int) -> Hands:
        """Return one digit; the strokes come first."""
        at = slice(index, index + 1)
        if index < len(self.strokes):
            return Hands(self.strokes[at], self.stroke_labels[at], self.stroke_writers[at])
        at = slice(index - len(self.strokes), index - len(self.strokes) + 1)
        return Hands(bitmaps=self.bitmaps[at], bitmap_labels=self.bitmap_labels[at])


def load_hands(root: Path, part: HandPart) -> Hands:
    """Read those collections that are in ``root``; parts share no writer of the strokes.

    A file that cannot be read is a DataError, and one that is missing is none.

    >>> len(load_hands(Path("nowhere"), "train"))
    0
    """
    calibration = part == "calibration"
    read: dict[str, object] = {}
    digests = {}
    for name in (PENDIGITS, OPTDIGITS):
        path = root / name
        if not path.is_file():
            continue
        content = path.read_bytes()
        digests[name] = hashlib.sha256(content).hexdigest()
        try:
            lines = content.decode("ascii").splitlines()
            read |= (_strokes if name == PENDIGITS else _bitmaps)(lines, calibration=calibration)
        except (ValueError, IndexError) as error:
            raise DataError(f"{path} cannot be read: {error}; get it again from UCI") from error
    return Hands(sha256=digests, **read)  # type: ignore[arg-type]


def _strokes(lines: list[str], *, calibration: bool) -> dict[str, object]:
    digits = [d for d in _unipen(lines) if (d[1] % _CALIBRATION_EVERY == 0) == calibration]
    return {
        "strokes": tuple(drawn for _, _, drawn in digits),
        "stroke_labels": np.array([label for label, _, _ in digits], dtype=np.int64),
        "stroke_writers": np.array([writer for _, writer, _ in digits], dtype=np.int64),
    }


def _unipen(lines: list[str]) -> Iterator[tuple[int, int, tuple[Doubles, ...]]]:
    """Yield digit, writer and lines: ".COMMENT digit writer number", then strokes of points."""
    label = writer = -1
    is_wrong = False
    drawn: list[list[tuple[float, float]]] = []
    down = False
    for line in [*lines, ".SEGMENT"]:
        words = line.split()
        if not words or words[0] in (".SEGMENT", ".COMMENT", ".PEN_DOWN", ".PEN_UP"):
            down = bool(words) and words[0] == ".PEN_DOWN"
        if not words:
            continue
        if words[0] == ".SEGMENT":
            if drawn and not is_wrong:
                yield label, writer, tuple(_flipped(stroke) for stroke in drawn)
            drawn = []
        elif words[0] == ".COMMENT":
            label, writer = int(words[1]), int(words[2])
            is_wrong = tuple(words[1:4]) in _MISLABELLED
        elif words[0] == ".PEN_DOWN":
            drawn.append([])
        elif down and not words[0].startswith("."):
            drawn[-1].append((float(words[0]), float(words[1])))


def _flipped(stroke: list[tuple[float, float]]) -> Doubles:
    """Return (K, 2) with y down; the tablet's goes up."""
    return np.array(stroke, dtype=np.float64).reshape(-1, 2) * (1.0, -1.0)


def _bitmaps(lines: list[str], *, calibration: bool) -> dict[str, object]:
    rows = [line for line in lines if len(line.strip()) in (1, _BITMAP_SIDE)]
    size = _BITMAP_SIDE + 1  # a bitmap's rows and its label
    # The first of the lines of one character is the count of bitmaps in some versions.
    rows = rows[len(rows) % size :]
    n = len(rows) // size
    bitmaps = np.zeros((n, _BITMAP_SIDE, _BITMAP_SIDE), dtype=bool)
    labels = np.zeros(n, dtype=np.int64)
    for i in range(n):
        *picture, label = rows[i * size : (i + 1) * size]
        bitmaps[i] = [[character == "1" for character in row.strip()] for row in picture]
        labels[i] = int(label)
    first = round((1 - _CALIBRATION_SHARE) * n)
    chosen = slice(first, None) if calibration else slice(None, first)
    return {"bitmaps": bitmaps[chosen], "bitmap_labels": labels[chosen]}
