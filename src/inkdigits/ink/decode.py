"""A picture of any kind → its luminance, upright and opaque, within limits. Pillow and NumPy.

It doesn't know what ink is; ``preprocessing`` looks for that in what comes from here.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, JpegImagePlugin

from inkdigits.errors import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from inkdigits.ink.png import read_plain
from inkdigits.types import Floats, Grey, Picture, Pixels

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# A filled shape on transparency whose shades differ by this much, of 255, has ink of its own on it.
CARD_CONTRAST = 40.0


# What Pillow's decoders raise for bytes that are not a sound picture. Decoders are third-party
# parsers of hostile input, so the list is long; anything else is a defect and is not caught.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    AttributeError,
    NotImplementedError,
    struct.error,
    zlib.error,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused before it is decoded.

    Attributes:
        max_bytes: size of the encoded picture.
        max_pixels: width times height that the picture's header declares.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 25_000_000


DEFAULT_LIMITS = Limits()


def read_grey(picture: Picture, limits: Limits = DEFAULT_LIMITS) -> Grey:
    """Luminance (H, W) of a picture, 0 black to 255 white, with transparency composited.

    Args:
        picture: see ``preprocessing.preprocess``, which raises the same errors.
        limits: sizes that are refused.

    Returns:
        uint8 where it has no more than that, which is faster to look through; else float32.
    """
    if isinstance(picture, str | os.PathLike):
        picture = _read(Path(picture), limits)
    if isinstance(picture, bytes) and len(picture) <= limits.max_bytes:
        plain = read_plain(picture, limits.max_pixels)
        if plain is not None:
            return _composite(*plain)
    if isinstance(picture, np.ndarray) and _is_grey(picture):
        _check_pixels((picture.shape[1], picture.shape[0]), limits)
        return picture
    return to_grey(_open(picture, limits))


def _open(picture: bytes | Image.Image | npt.NDArray[np.uint8], limits: Limits) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return _from_array(picture, limits)
    if isinstance(picture, Image.Image):
        _check_pixels(picture.size, limits)
        return _loaded(picture)
    if isinstance(picture, bytes | bytearray | memoryview):
        return _decode(bytes(picture), limits)
    raise UnsupportedImageError(
        f"a picture is a path, bytes, a Pillow image or a uint8 array, not {type(picture).__name__}"
    )


def _read(path: Path, limits: Limits) -> bytes:
    try:
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise ImageTooLargeError(f"{path} has {size:,} bytes; at most {limits.max_bytes:,}")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path} can't be read: {error.strerror}") from error


def _is_grey(array: npt.NDArray[np.uint8]) -> bool:
    """Whether an array is luminance as it is, which Pillow would only copy."""
    return array.dtype == np.uint8 and array.ndim == 2 and array.size > 0


def _from_array(array: npt.NDArray[np.uint8], limits: Limits) -> Image.Image:
    if array.dtype != np.uint8:
        raise UnsupportedImageError(f"an array must be uint8 (0 to 255), not {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or not array.size:
        raise UnsupportedImageError(
            f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}"
        )
    _check_pixels((array.shape[1], array.shape[0]), limits)
    return Image.fromarray(array)


def _decode(content: bytes, limits: Limits) -> Image.Image:
    if not content:
        raise UnreadableImageError("the picture is empty: 0 bytes")
    if len(content) > limits.max_bytes:
        raise ImageTooLargeError(
            f"the picture has {len(content):,} bytes; at most {limits.max_bytes:,} are taken"
        )
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"the picture is far over the limit of {limits.max_pixels:,} pixels"
        ) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"these {len(content):,} bytes are not a picture that can be read; "
            f"taken are {', '.join(FORMATS)}"
        ) from error
    _check_pixels(image.size, limits)
    return _loaded(image)


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the picture has {width} x {height} = {width * height:,} pixels; "
            f"at most {limits.max_pixels:,} are taken"
        )
    if not width * height:
        raise UnreadableImageError(f"the picture has no pixels: {width} x {height}")


def _loaded(image: Image.Image) -> Image.Image:
    """Decoded and turned upright."""
    try:
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            # A JPEG holds its luminance apart, so that its colours needn't be decoded.
            image.draft("L", image.size)
        image.load()
        return ImageOps.exif_transpose(image)
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"the picture is truncated or damaged ({image.format or image.mode}): {error}"
        ) from error


def to_grey(image: Image.Image) -> Grey:
    """Luminance (H, W), 0 black to 255 white, with transparency composited.

    Raises:
        UnsupportedImageError: samples of more than 16 bits, or not finite.
    """
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32) / np.float32(257.0)
    if image.mode in ("I", "F"):
        return _wide_samples(np.asarray(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return _composite(
            np.asarray(image.convert("RGB").convert("L")), np.asarray(image.getchannel("A"))
        )
    if image.mode not in ("1", "L", "P", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _wide_samples(samples: npt.NDArray[np.generic]) -> Floats:
    values = samples.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all() or low < 0 or high > 65535:
        raise UnsupportedImageError(
            f"samples run from {low:g} to {high:g}; taken are 0-1 (float), 0-255 and 0-65535"
        )
    if samples.dtype.kind == "f" and high <= 1:
        values *= 255.0
    elif high > 255:
        values /= 257.0
    return values.astype(np.float32)


def _composite(shade: Pixels | int, alpha: Pixels | int) -> Grey:
    """Put a transparent picture on the paper that makes its ink visible.

    A drawing on transparency is ink of about one colour, so the paper is the opposite of it. A
    card (a filled shape with ink of its own on it) gets paper of the card's own commonest shade,
    so that the card's edge isn't read.

    Args:
        shade: (H, W) uint8, or an int where it is the same everywhere; not both are ints.
        alpha: likewise.
    """
    if isinstance(alpha, int):
        if alpha == 255 and not isinstance(shade, int):
            return shade
        alpha = np.full_like(shade, alpha)
    if alpha.min() == 255:
        return np.full_like(alpha, shade) if isinstance(shade, int) else shade
    paper = _paper_behind(shade, alpha)
    if paper is None:
        return np.full_like(alpha, 255)
    share = alpha.astype(np.float32)
    share /= 255.0
    composited = np.multiply(shade, share, dtype=np.float32)
    np.subtract(1.0, share, out=share)
    share *= np.float32(paper)
    composited += share
    return composited


def _paper_behind(shade: Pixels | int, alpha: Pixels) -> float | None:
    """The paper's shade, or None where nothing is visible."""
    visible = alpha >= 128
    if not visible.any():
        visible = alpha > 0
        if not visible.any():
            return None
    if isinstance(shade, int):
        return 0.0 if shade >= 128 else 255.0
    counts = np.cumsum(np.bincount(shade[visible], minlength=256))
    middle = _quantile(counts, 0.5)
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    is_card = (
        counts[-1] >= 0.6 * box
        and _quantile(counts, 0.99) - _quantile(counts, 0.01) >= CARD_CONTRAST
    )
    opposite = 0.0 if middle >= 128 else 255.0
    return middle if is_card else opposite


def _quantile(counts: npt.NDArray[np.int64], share: float) -> float:
    """Of shades whose cumulative counts (256,) are given; between two of them by their distance."""
    position = share * (int(counts[-1]) - 1)
    below = int(position)
    low, high = np.searchsorted(counts, (below, min(below + 1, int(counts[-1]) - 1)), "right")
    return float(low + (high - low) * (position - below))
