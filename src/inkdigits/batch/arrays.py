"""Pictures in arrays: NumPy's ``.npy`` files, and IDX, MNIST's own format.

IDX is a header and the values (LeCun, Cortes and Burges, "The MNIST database", at the end of its
page): two zero bytes, the type (8 is uint8), the number of dimensions, and each dimension as a
big-endian 32-bit number.
"""

from __future__ import annotations

import gzip
import math
import struct
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import numpy as np

from inkdigits.batch.storage import read_range
from inkdigits.errors import DataError
from inkdigits.ink.decode import Limits
from inkdigits.types import Pixels

# NumPy raises these for a damaged header, which it parses as Python literals.
_NPY_ERRORS: Final = (
    *(KeyError, ValueError, TypeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)
_NPY_HEADERS: Final = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Pictures that follow each other in a file, which is opened only while they are read."""

    path: Path
    offset: int  # in bytes
    shape: tuple[int, ...]  # (N, H, W) or (N, H, W, C), uint8

    def __len__(self) -> int:
        return self.shape[0]

    def read(self) -> Pixels:
        """Return the pictures; DataError if the file is shorter than it was."""
        content = read_range(self.path, self.offset, math.prod(self.shape))
        if len(content) < math.prod(self.shape):
            raise DataError(f"{self.path} was changed during the run")
        return np.frombuffer(content, np.uint8).reshape(self.shape)


def array_shape(path: Path, limits: Limits) -> tuple[int, ...]:
    """Return (N, H, W) or (N, H, W, C) that the header of a ``.npy`` or IDX file declares.

    Raises:
        DataError: not such a file, or not of pictures.

    >>> array_shape(Path("missing.npy"), Limits())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: missing.npy cannot be read: ...
    """
    with _opened(path) as file:
        return _header(path, file, limits)


def array_blocks(path: Path, limits: Limits, count: int) -> Iterator[Rows | Pixels]:
    """Yield the pictures of a ``.npy`` or IDX file, so many at a time; the last may be fewer.

    Raises:
        DataError: from some picture on it cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
    ...     np.save(file.name, np.zeros((5, 28, 28), np.uint8))
    ...     [len(block) for block in array_blocks(Path(file.name), Limits(), 3)]
    [3, 2]
    """
    with _opened(path) as file:
        shape = _header(path, file, limits)
        offset, each = file.tell(), math.prod(shape[1:])
        packed = path.suffix.lower() == ".gz"
        there = shape[0] * each if packed else path.stat().st_size - offset
        for first in range(0, shape[0], count):
            asked = min(count, shape[0] - first)
            content = file.read(asked * each) if packed else b""
            bytes_left = len(content) if packed else max(0, there - first * each)
            block = (min(asked, bytes_left // each), *shape[1:])
            if block[0] and packed:
                yield np.frombuffer(content, np.uint8, math.prod(block)).reshape(block)
            elif block[0]:
                yield Rows(path, offset + first * each, block)
            if block[0] < asked:
                raise DataError(f"{path} ends after {first + block[0]:,} of {shape[0]:,} pictures")
        # Reading past the end makes gzip compare its checksum.
        if there > shape[0] * each or (packed and file.read(1)):
            raise DataError(f"{path} holds more than the {shape[0]:,} pictures of its header")


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
    except (EOFError, OSError, TypeError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _header(path: Path, file: IO[bytes], limits: Limits) -> tuple[int, ...]:
    """Return the shape; leave ``file`` after the header."""
    shape = (_npy_header if path.suffix.lower() == ".npy" else _idx_header)(path, file)
    height, width = shape[1:3]
    if min(height, width) < 1 or height * width > limits.max_pixels:
        raise DataError(
            f"{path}: its pictures have {height:,} x {width:,} pixels; at least 1 and at most "
            f"{limits.max_pixels:,} are allowed"
        )
    return shape


def _npy_header(path: Path, file: IO[bytes]) -> tuple[int, ...]:
    try:
        shape, by_columns, dtype = _NPY_HEADERS[np.lib.format.read_magic(file)](file)
    except _NPY_ERRORS as error:
        raise DataError(f"{path} cannot be read as a NumPy array: {error}") from error
    if dtype != np.uint8:
        raise DataError(f"{path} holds {dtype}; pictures are uint8, 0 to 255")
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3, 4)):
        raise DataError(
            f"{path} has the shape {shape}; supported are (N, H, W) and (N, H, W, C) with "
            "1, 3 or 4 channels"
        )
    if by_columns and shape[0]:
        raise DataError(f"{path} is in Fortran's order; save it with numpy.ascontiguousarray")
    return tuple(shape)


def _idx_header(path: Path, file: IO[bytes]) -> tuple[int, ...]:
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
    return struct.unpack(">3I", header[4:])
