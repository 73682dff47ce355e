"""A picture of any kind → its luminance, upright and opaque, within limits. Pillow and NumPy."""

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
from inkdigits.ink.container import check_pixels, look_ahead
from inkdigits.ink.png import read_plain
from inkdigits.types import Floats, Grey, Picture, Pixels

# A filled shape on transparency whose shades differ by this much, of 255, is a card with ink on it.
CARD_CONTRAST = 40.0

# Rows of a picture that are composited at a time, which bounds the memory for it.
_STRIP = 256

# How a picture is turned upright whose EXIF has this orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise for bytes that are not a sound picture. Decoders are third-party
# parsers of hostile input, so the list is long; anything else is a defect and is not caught.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, EOFError),
    *(AttributeError, NotImplementedError, struct.error, zlib.error, MemoryError),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is rejected before it is decoded."""

    max_bytes: int = 10 * 1024 * 1024
    """The greatest size of the encoded picture."""
    max_pixels: int = 25_000_000
    """The greatest width times height.

    Half of it for WebP and for 32-bit samples, which take twice the memory."""
    max_scans: int = 32
    """The greatest number of scans of a progressive JPEG; encoders make 6 to 12."""


DEFAULT_LIMITS = Limits()


def read_grey(picture: Picture, limits: Limits = DEFAULT_LIMITS) -> Grey:
    """Return the luminance (H, W) of a picture, 0 black to 255 white, transparency composited.

    Arguments and errors are those of ``normalize.preprocess``.

    Returns:
        uint8 where the picture has 8 bits per sample and is opaque; else float32.

    >>> read_grey(np.uint8([[[255, 0, 0], [255, 255, 255]]])).tolist()
    [[76, 255]]
    """
    if not isinstance(picture, bytes) and isinstance(picture, str | os.PathLike):
        picture = _read(Path(picture), limits)
    if isinstance(picture, bytes) and len(picture) <= limits.max_bytes:
        plain = read_plain(picture, limits.max_pixels)
        if plain:
            return _composite(*plain)
    if isinstance(picture, np.ndarray):
        array = _checked(picture, limits)
        samples = array if array.ndim == 2 else _samples(Image.fromarray(array))
    else:
        samples = _samples(_open(picture, limits))
    # The decoded picture is gone by now, which halves the memory that compositing takes.
    return samples if isinstance(samples, np.ndarray) else _composite(*samples)


def _open(picture: bytes | Image.Image, limits: Limits) -> Image.Image:
    if isinstance(picture, Image.Image):
        check_pixels("The picture", *picture.size, limits.max_pixels)
        _load(picture)
        return ImageOps.exif_transpose(picture)
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


def _checked(array: Pixels, limits: Limits) -> Pixels:
    if array.dtype != np.uint8:
        raise UnsupportedImageError(f"an array must be uint8 (0 to 255), not {array.dtype}")
    if array.shape[2:] not in ((), (1,), (3,), (4,)) or array.ndim < 2 or not array.size:
        raise UnsupportedImageError(
            f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}"
        )
    check_pixels("The array", array.shape[1], array.shape[0], limits.max_pixels)
    return array[:, :, 0] if array.shape[2:] == (1,) else array


def _decode(content: bytes, limits: Limits) -> Image.Image:
    if not content:
        raise UnreadableImageError("The picture is empty: 0 bytes.")
    if len(content) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The picture has {len(content):,} bytes; the limit is {limits.max_bytes:,}. "
            "Send a smaller picture or raise INKDIGITS_MAX_BYTES."
        )
    file = look_ahead(content, limits.max_pixels, limits.max_scans)
    try:
        image = Image.open(io.BytesIO(file.content), formats=[file.format])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(
            f"The picture is far over the limit of {limits.max_pixels:,} pixels. "
            "Send a smaller picture."
        ) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(f"The {file.format} is truncated or damaged.") from error
    is_wide = image.mode in ("I", "F")
    what = "The picture, whose 32-bit samples take twice the memory," if is_wide else "The picture"
    check_pixels(what, *image.size, limits.max_pixels // 2 if is_wide else limits.max_pixels)
    _load(image)
    return image.transpose(_UPRIGHT[file.orientation]) if file.orientation > 1 else image


def _load(image: Image.Image) -> None:
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        # A JPEG holds its luminance apart, so its colours need not be decoded.
        image.draft("L", image.size)
    try:
        image.load()
    except _DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"The {image.format or 'picture'} is truncated or damaged: {error}"
        ) from error
    if image.mode in ("P", "PA") and image.palette is None:
        raise UnreadableImageError(
            f"The {image.format or 'picture'} is damaged: it has no palette."
        )


def _samples(image: Image.Image) -> Grey | tuple[Pixels, Pixels]:
    """Return a picture's luminance (H, W), or luminance and opacity if it is transparent."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float32) / np.float32(257.0)
    if image.mode in ("I", "F"):
        return _wide_samples(np.asarray(image))
    if image.has_transparency_data:
        return _shade_and_alpha(image)
    if image.mode not in ("1", "L", "P", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _shade_and_alpha(image: Image.Image) -> tuple[Pixels, Pixels]:
    """Return luminance and opacity, (H, W) each, without a copy of the whole picture in RGBA."""
    shade = np.empty((image.height, image.width), np.uint8)
    alpha = np.empty_like(shade)
    for top in range(0, image.height, _STRIP):
        rows = slice(top, min(top + _STRIP, image.height))
        strip = image.crop((0, rows.start, image.width, rows.stop)).convert("RGBA")
        shade[rows] = np.asarray(strip.convert("RGB").convert("L"))
        alpha[rows] = np.asarray(strip.getchannel("A"))
    return shade, alpha


def _wide_samples(samples: npt.NDArray[np.generic]) -> Floats:
    low, high = float(samples.min()), float(samples.max())
    if not np.isfinite([low, high]).all() or low < 0 or high > 65535:
        raise UnsupportedImageError(
            f"The samples run from {low:g} to {high:g}; supported are 0-1 (float), 0-255 and "
            "0-65535. Save the picture as 8-bit PNG."
        )
    levels = np.empty(samples.shape, np.float32)
    for top in range(0, len(samples), _STRIP):
        strip = samples[top : top + _STRIP].astype(np.float64)
        if samples.dtype.kind == "f" and high <= 1:
            strip *= 255.0
        elif high > 255:
            strip /= 257.0
        levels[top : top + _STRIP] = strip
    return levels


def _composite(shade: Pixels | int, alpha: Pixels | int) -> Grey:
    """Put a transparent picture, as ``read_plain`` returns it, on what makes its ink visible."""
    if isinstance(alpha, int):
        if alpha == 255 and not isinstance(shade, int):
            return shade
        alpha = np.full_like(shade, alpha)
    if alpha.min() == 255:
        return np.full_like(alpha, shade) if isinstance(shade, int) else shade
    background = _background_behind(shade, alpha)
    if background is None:
        return np.full_like(alpha, 255)
    composited = np.empty(alpha.shape, np.float32)
    for top in range(0, len(alpha), _STRIP):
        rows = slice(top, top + _STRIP)
        share = alpha[rows].astype(np.float32)
        share /= 255.0
        part = shade if isinstance(shade, int) else shade[rows]
        np.multiply(part, share, out=composited[rows], dtype=np.float32)
        np.subtract(1.0, share, out=share)
        share *= np.float32(background)
        composited[rows] += share
    return composited


def _background_behind(shade: Pixels | int, alpha: Pixels) -> float | None:
    """Return the background's shade, or None where nothing is visible.

    A drawing on transparency is ink of about one colour, so the background is the opposite of it.
    A card (a filled shape with ink on it) gets a background of the card's commonest shade, so that
    the card's edge is not read as ink.
    """
    visible = alpha >= 128
    if not visible.any():
        visible = alpha > 0
    if not visible.any():
        return None
    if isinstance(shade, int):
        return 0.0 if shade >= 128 else 255.0
    # bincount makes 8 bytes of each shade, so that it is given some rows at a time.
    starts = range(0, len(shade), _STRIP)
    parts = (shade[at : at + _STRIP][visible[at : at + _STRIP]] for at in starts)
    counts = np.cumsum(sum(np.bincount(part, minlength=256) for part in parts))
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
