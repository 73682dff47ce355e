"""Pictures in arrays: NumPy's ``.npy`` files, and IDX, MNIST's own format.

IDX is a header and the values (LeCun, Cortes and Burges, "The MNIST database", at the end of its
page): two zero bytes, the type (8 is uint8), the number of dimensions, and each dimension as a
big-endian 32-bit number.
"""

from __future__ import annotations

import gzip
import struct
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import numpy as np

from inkdigits.errors import DataError
from inkdigits.ink.decode import Limits
from inkdigits.types import Pixels

# NumPy raises these for a damaged header, which it parses as Python literals.
_NPY_ERRORS: Final = (
    *(OSError, EOFError, ValueError, TypeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)


@dataclass(frozen=True, slots=True)
class NpyRows:
    """Rows of a ``.npy`` file, which is mapped only while they are read."""

    path: Path
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    def read(self) -> Pixels:
        """Return a copy of the rows (N, H, W) or (N, H, W, C), uint8.

        Raises:
            DataError: the file is shorter than it was.
        """
        array = _mapped(self.path)[self.rows.start : self.rows.stop]
        if len(array) < len(self):
            raise DataError(f"{self.path} was changed during the run")
        return np.array(array)


def npy_shape(path: Path, limits: Limits) -> tuple[int, ...]:
    """Return (N, H, W) or (N, H, W, C) of a ``.npy`` file of uint8.

    Raises:
        DataError: not such a file, truncated, or of another shape or type.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
    ...     np.save(file.name, np.zeros((5, 28, 28), np.uint8))
    ...     print(npy_shape(Path(file.name), Limits()))
    ...     print([len(block) for block in npy_blocks(Path(file.name), Limits(), 3)])
    (5, 28, 28)
    [3, 2]
    """
    array = _mapped(path)
    if array.dtype != np.uint8:
        raise DataError(f"{path} holds {array.dtype}; pictures are uint8, 0 to 255")
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise DataError(
            f"{path} has the shape {array.shape}; supported are (N, H, W) and (N, H, W, C) with "
            "1, 3 or 4 channels"
        )
    _check_size(path, array.shape, limits)
    return array.shape


def npy_blocks(path: Path, limits: Limits, count: int) -> Iterator[NpyRows]:
    """Yield the pictures of a ``.npy`` file, so many at a time; the last may be fewer.

    >>> next(npy_blocks(Path("missing.npy"), Limits(), 8))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: missing.npy cannot be read as a NumPy array: ...
    """
    total = npy_shape(path, limits)[0]
    for first in range(0, total, count):
        yield NpyRows(path, range(first, min(first + count, total)))


def _mapped(path: Path) -> Pixels:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _NPY_ERRORS as error:
        raise DataError(f"{path} cannot be read as a NumPy array: {error}") from error
    if not isinstance(array, np.memmap):
        raise DataError(f"{path} is not a NumPy array in a file of its own")
    return array


def idx_shape(path: Path, limits: Limits) -> tuple[int, ...]:
    """Return (N, H, W) that the header of an IDX file declares; ``.gz`` is unpacked.

    Raises:
        DataError: not such a file, or not of pictures.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(struct.pack(">HBB3I", 0, 8, 3, 1, 2, 2) + bytes(4))
    ...     file.flush()
    ...     print(idx_shape(Path(file.name), Limits()))
    ...     print([block.shape for block in idx_blocks(Path(file.name), Limits(), 8)])
    (1, 2, 2)
    [(1, 2, 2)]
    """
    with _opened(path) as file:
        return _idx_header(path, file, limits)


def idx_blocks(path: Path, limits: Limits, count: int) -> Iterator[Pixels]:
    """Yield the pictures of an IDX file as (count, H, W) uint8; the last may have fewer.

    Raises:
        DataError: from some picture on it cannot be read.

    >>> next(idx_blocks(Path("missing.idx"), Limits(), 8))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: missing.idx cannot be read: ...
    """
    with _opened(path) as file:
        total, height, width = _idx_header(path, file, limits)
        for first in range(0, total, count):
            asked = min(count, total - first)
            block = file.read(asked * height * width)
            whole = len(block) // (height * width)
            if whole:
                yield np.frombuffer(block, np.uint8, whole * height * width).reshape(
                    whole, height, width
                )
            if whole < asked:
                raise DataError(f"{path} ends after {first + whole:,} of {total:,} pictures")
        # Reading past the end makes gzip compare its checksum.
        if file.read(1):
            raise DataError(f"{path} holds more than the {total:,} pictures of its header")


def idx_labels(path: Path) -> bytes:
    """Return the labels of an IDX file, one byte each; ``.gz`` is unpacked.

    Raises:
        DataError: not such a file, or not of labels.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(struct.pack(">HBBI", 0, 8, 1, 3) + bytes([7, 1, 9]))
    ...     file.flush()
    ...     list(idx_labels(Path(file.name)))
    [7, 1, 9]
    """
    with _opened(path) as file:
        header, labels = file.read(8), file.read()
    if header[:4] != b"\0\0\x08\x01" or len(labels) != int.from_bytes(header[4:], "big"):
        raise DataError(f"{path} is not an IDX file of labels, or its length is not the declared")
    return labels


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            yield cast(IO[bytes], unpacked) if path.suffix.lower() == ".gz" else raw
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _idx_header(path: Path, file: IO[bytes], limits: Limits) -> tuple[int, int, int]:
    """Return (N, H, W), and leave ``file`` after the header."""
    header = file.read(16)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it begins with {header[:4]!r}")
    if header[2:4] != b"\x08\x03":
        raise DataError(
            f"{path} is an IDX file of type {header[2]} and {header[3]} dimensions; pictures are "
            "of type 8 (uint8) and 3 dimensions"
        )
    if len(header) < 16:
        raise DataError(f"{path}: the IDX header is truncated")
    number, height, width = struct.unpack(">3I", header[4:])
    _check_size(path, (number, height, width), limits)
    return number, height, width


def _check_size(path: Path, shape: tuple[int, ...], limits: Limits) -> None:
    height, width = shape[1:3]
    if not 0 < height * width <= limits.max_pixels:
        raise DataError(
            f"{path}: its pictures have {height:,} x {width:,} pixels; at least 1 and at most "
            f"{limits.max_pixels:,} are allowed"
        )
