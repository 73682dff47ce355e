"""Pictures in arrays: NumPy's ``.npy`` files, and IDX, MNIST's own format.

IDX is a header and the values (LeCun, Cortes and Burges, "The MNIST database", at the end of its
page): two zero bytes, the type (8 is uint8), the number of dimensions, and each dimension as a
big-endian 32-bit number.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np
import numpy.typing as npt

from inkdigits.errors import DataError
from inkdigits.ink.decode import Limits

# NumPy raises these for a damaged header, which it parses as Python literals.
_NPY_ERRORS: Final = (
    *(OSError, EOFError, ValueError, TypeError, OverflowError),
    *(SyntaxError, tokenize.TokenError, RecursionError, MemoryError),
)
# gzip raises these for damaged bytes.
_GZIP_ERRORS: Final = (EOFError, OSError, zlib.error)

_IDX_NAME: Final = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$")
_IDX_UINT8: Final = 8
_IDX_IMAGES: Final = 3


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """An array of pictures in a file, uncompressed.

    Attributes:
        path: the file.
        offset: where the values start, in bytes.
        shape: (N, H, W) or (N, H, W, C).
        order: "C", or "F" for Fortran's.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    order: Literal["C", "F"] = "C"

    def rows(self, first: int, count: int) -> npt.NDArray[np.uint8]:
        """Return a copy of ``count`` pictures, uint8; the file is mapped only meanwhile.

        Raises:
            DataError: the file is shorter than it was.
        """
        try:
            mapped: npt.NDArray[np.uint8] = np.memmap(
                self.path, np.uint8, "r", self.offset, self.shape, self.order
            )
        except ValueError as error:
            raise DataError(f"{self.path} was changed during the run: {error}") from error
        return np.array(mapped[first : first + count])


def is_idx_name(name: str) -> bool:
    """Return whether a file's name is one of IDX: ``…-idx3-ubyte``, ``….idx``, also ``.gz``.

    >>> is_idx_name("train-images-idx3-ubyte.gz"), is_idx_name("Digits.IDX"), is_idx_name("idx.png")
    (True, True, False)
    """
    return _IDX_NAME.search(name.lower()) is not None


def npy_file(path: Path, limits: Limits) -> ArrayFile:
    """Return the array in a ``.npy`` file; only its header is read.

    Raises:
        DataError: not such a file, truncated, or not (N, H, W) or (N, H, W, C) of uint8.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".npy") as file:
    ...     np.save(file.name, np.zeros((5, 28, 28), np.uint8))
    ...     npy_file(Path(file.name), Limits()).shape
    (5, 28, 28)
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _NPY_ERRORS as error:
        raise DataError(f"{path} cannot be read as a NumPy array: {error}") from error
    if not isinstance(array, np.memmap):
        raise DataError(f"{path} is not a NumPy array in a file of its own")
    if array.dtype != np.uint8:
        raise DataError(f"{path} holds {array.dtype}; pictures are uint8, 0 to 255")
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] not in (1, 3, 4)):
        raise DataError(
            f"{path} has the shape {array.shape}; supported are (N, H, W) and (N, H, W, C) with "
            "1, 3 or 4 channels"
        )
    _check_size(path, array.shape, limits)
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    return ArrayFile(path, array.offset, array.shape, order)


def idx_file(path: Path, limits: Limits) -> ArrayFile:
    """Return the array in an uncompressed IDX file; only its header is read.

    Raises:
        DataError: not such a file, not of pictures, or not as long as its header says.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(struct.pack(">HBB3I", 0, 8, 3, 1, 2, 2) + bytes(4))
    ...     file.flush()
    ...     idx_file(Path(file.name), Limits()).shape
    (1, 2, 2)
    """
    with path.open("rb") as file:
        shape = _idx_shape(path, file, limits)
        offset = file.tell()
    size, declared = path.stat().st_size - offset, math.prod(shape)
    if size != declared:
        raise DataError(
            f"{path}: its header declares {shape[0]:,} pictures, {declared:,} bytes; "
            f"it has {size:,}"
        )
    return ArrayFile(path, offset, shape)


def packed_idx_shape(path: Path, limits: Limits) -> tuple[int, int, int]:
    """Return (N, H, W) that the header of an IDX file compressed with gzip declares.

    Raises:
        DataError: not such a file, or not of pictures.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 1, 2, 2) + bytes(4)))
    ...     file.flush()
    ...     packed_idx_shape(Path(file.name), Limits())
    ...     [(first, rows.shape) for first, rows in packed_idx_rows(Path(file.name), Limits(), 8)]
    (1, 2, 2)
    [(0, (1, 2, 2))]
    """
    with _unpacked(path) as file:
        return _idx_shape(path, file, limits)


@contextmanager
def _unpacked(path: Path) -> Iterator[gzip.GzipFile]:
    try:
        with gzip.open(path, "rb") as file:
            yield file
    except _GZIP_ERRORS as error:
        raise DataError(f"{path} cannot be unpacked further: {error}") from error


def packed_idx_rows(
    path: Path, limits: Limits, count: int
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Yield the pictures of an IDX file compressed with gzip, ``count`` at a time.

    Returns:
        The number of the first, and (count, H, W) uint8, the last with fewer.

    Raises:
        DataError: from some picture on it cannot be read.

    >>> next(packed_idx_rows(Path("missing.gz"), Limits(), 8))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.DataError: missing.gz cannot be unpacked further: ...
    """
    first = 0
    with _unpacked(path) as file:
        total, height, width = _idx_shape(path, file, limits)
        while first < total:
            wanted = min(count, total - first)
            block = file.read(wanted * height * width)
            whole = len(block) // (height * width)
            if whole:
                values = np.frombuffer(block[: whole * height * width], np.uint8)
                yield first, values.reshape(whole, height, width)
            first += whole
            if whole < wanted:
                raise DataError(f"{path} ends after {first:,} of {total:,} pictures")
        # Reading past the end makes gzip compare its checksum.
        if file.read(1):
            raise DataError(f"{path} holds more than the {total:,} pictures of its header")


def _idx_shape(path: Path, file: IO[bytes] | gzip.GzipFile, limits: Limits) -> tuple[int, int, int]:
    """Return (N, H, W) that an IDX header declares, and leave ``file`` after the header."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it begins with {magic!r}")
    if magic[2] != _IDX_UINT8 or magic[3] != _IDX_IMAGES:
        raise DataError(
            f"{path} is an IDX file of type {magic[2]} and {magic[3]} dimensions; pictures are of "
            f"type {_IDX_UINT8} (uint8) and {_IDX_IMAGES} dimensions"
        )
    sizes = file.read(4 * _IDX_IMAGES)
    if len(sizes) < 4 * _IDX_IMAGES:
        raise DataError(f"{path}: the IDX header is truncated")
    number, height, width = struct.unpack(">3I", sizes)
    _check_size(path, (number, height, width), limits)
    return number, height, width


def _check_size(path: Path, shape: tuple[int, ...], limits: Limits) -> None:
    height, width = shape[1:3]
    if not 0 < height * width <= limits.max_pixels:
        raise DataError(
            f"{path}: its pictures have {height:,} x {width:,} pixels; at least 1 and at most "
            f"{limits.max_pixels:,} are allowed"
        )
