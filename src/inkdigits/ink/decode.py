"""A picture of any kind → its luminance, upright and opaque, within limits. Pillow and NumPy.

This module does not know what ink is; ``plain`` looks for that in what it returns.
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
# A filled shape on transparency whose shades differ by this much, of 255, is a card with ink on it.
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
    """What is rejected before it is decoded.

    Attributes:
        max_bytes: greatest size of the encoded picture.
        max_pixels: greatest width times height that the picture's header declares.
    """

    max_bytes: int = 10 * 1024 * 1024
    max_pixels: int = 25_000_000


DEFAULT_LIMITS = Limits()


def read_grey(picture: Picture, limits: Limits = DEFAULT_LIMITS) -> Grey:
    """Return the luminance (H, W) of a picture, 0 black to 255 white, transparency composited.

    Args:
        picture: see ``normalize.preprocess``, which raises the same errors.
        limits: sizes above which pictures are rejected.

    Returns:
        uint8 where the picture has 8 bits per sample and is opaque; else float32.

    >>> read_grey(np.uint8([[[255, 0, 0], [255, 255, 255]]])).tolist()
    [[76, 255]]
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


def _open(picture: bytes | Image.Image | Pixels, limits: Limits) -> Image.Image:
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
            raise ImageTooLargeError(
                f"{path} has {size:,} bytes; the limit is {limits.max_bytes:,}"
            )
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read: {error.strerror}") from error


def _is_grey(array: Pixels) -> bool:
    """Return whether an array is luminance as it is, which Pillow would only copy."""
    return array.dtype == np.uint8 and array.ndim == 2 and array.size > 0


def _from_array(array: Pixels, limits: Limits) -> Image.Image:
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
            f"the picture has {len(content):,} bytes; the limit is {limits.max_bytes:,}"
        )
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"the picture is far over the limit of {limits.max_pixels:,} pixels"
        ) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"these {len(content):,} bytes are not a picture that can be read; the supported "
            f"formats are {', '.join(FORMATS)}"
        ) from error
    _check_pixels(image.size, limits)
    return _loaded(image)


def _check_pixels(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLargeError(
            f"the picture has {width} x {height} = {width * height:,} pixels; "
            f"the limit is {limits.max_pixels:,}"
        )
    if not width * height:
        raise UnreadableImageError(f"the picture has no pixels: {width} x {height}")


def _loaded(image: Image.Image) -> Image.Image:
    """Return the picture decoded and turned upright."""
    try:
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            # A JPEG holds its luminance apart, so its colours need not be decoded.
            image.draft("L", image.size)
        image.load()
        return ImageOps.exif_transpose(image)
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"the picture is truncated or damaged ({image.format or image.mode}): {error}"
        ) from error


def to_grey(image: Image.Image) -> Grey:
    """Return the luminance (H, W), 0 black to 255 white, transparency composited.

    Raises:
        UnsupportedImageError: samples of more than 16 bits, or not finite.

    >>> to_grey(Image.new("RGBA", (2, 1), (0, 0, 0, 0))).tolist()
    [[255, 255]]
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
            f"samples run from {low:g} to {high:g}; supported are 0-1 (float), 0-255 and 0-65535"
        )
    if samples.dtype.kind == "f" and high <= 1:
        values *= 255.0
    elif high > 255:
        values /= 257.0
    return values.astype(np.float32)


def _composite(shade: Pixels | int, alpha: Pixels | int) -> Grey:
    """Put a transparent picture on the background that makes its ink visible.

    A drawing on transparency is ink of about one colour, so the background is the opposite of it.
    A card (a filled shape with ink on it) gets a background of the card's commonest shade, so that
    the card's edge is not read as ink.

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
    background = _background_behind(shade, alpha)
    if background is None:
        return np.full_like(alpha, 255)
    share = alpha.astype(np.float32)
    share /= 255.0
    composited = np.multiply(shade, share, dtype=np.float32)
    np.subtract(1.0, share, out=share)
    share *= np.float32(background)
    composited += share
    return composited


def _background_behind(shade: Pixels | int, alpha: Pixels) -> float | None:
    """Return the background's shade, or None where nothing is visible."""
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
    """Return a quantile of shades with these cumulative counts (256,), interpolated."""
    position = share * (int(counts[-1]) - 1)
    below = int(position)
    low, high = np.searchsorted(counts, (below, min(below + 1, int(counts[-1]) - 1)), "right")
    return float(low + (high - low) * (position - below))
