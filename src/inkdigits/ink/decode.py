"""A picture of any kind → its luminance, upright and opaque, within limits. Pillow and NumPy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from inkdigits.errors import ImageTooLargeError, UnreadableImageError, UnsupportedImageError
from inkdigits.ink.container import check_pixels, decode, load
from inkdigits.ink.png import Drawing, read_drawing
from inkdigits.types import Floats, Grey, Picture, Pixels

# A filled shape on transparency whose shades differ by this much, of 255, is a card with ink on it.
CARD_CONTRAST = 40.0


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


class Luminance(NamedTuple):
    """The luminance of a picture, 0 black to 255 white, or of the part that is not background."""

    part: Grey  # (h, w); uint8 where the picture has 8 bits per sample and is opaque, else float32
    top: int
    left: int
    whole: tuple[int, int]  # height and width of the picture
    background: np.uint8 | np.float32  # of all that is around the part

    @classmethod
    def of(cls, grey: Grey) -> Luminance:
        """Make a luminance of a whole picture (H, W)."""
        return cls(grey, 0, 0, (grey.shape[0], grey.shape[1]), grey[0, 0])

    @property
    def grey(self) -> Grey:
        """The whole picture (H, W)."""
        if self.part.shape == self.whole:
            return self.part
        grey = np.full(self.whole, self.background, self.part.dtype)
        height, width = self.part.shape
        grey[self.top : self.top + height, self.left : self.left + width] = self.part
        return grey


def read_luminance(picture: Picture, limits: Limits = DEFAULT_LIMITS) -> Luminance:
    """Return the luminance of a picture, transparency composited.

    Arguments and errors are those of ``normalize.preprocess``.

    >>> read_luminance(np.uint8([[[255, 0, 0], [255, 255, 255]]])).grey.tolist()
    [[76, 255]]
    """
    if not isinstance(picture, bytes) and isinstance(picture, str | os.PathLike):
        picture = _read(Path(picture), limits)
    if isinstance(picture, bytes) and len(picture) <= limits.max_bytes:
        drawing = read_drawing(picture, limits.max_pixels)
        found = None if drawing is None else _of_drawing(drawing)
        if found is not None:
            return found
    if isinstance(picture, np.ndarray):
        array = _checked(picture, limits)
        samples = array if array.ndim == 2 else _samples(Image.fromarray(array))
    else:
        samples = _samples(_open(picture, limits))
    # The decoded picture is gone by now, which halves the memory that compositing takes.
    return Luminance.of(samples if isinstance(samples, np.ndarray) else _composite(*samples)[0])


def _of_drawing(drawing: Drawing) -> Luminance | None:
    """Return a drawing's luminance; None where its background is half transparent."""
    shade, alpha, top, left, whole, around = drawing
    if around is None:
        grey = shade if isinstance(alpha, int) else _composite(shade, alpha)[0]
        return None if isinstance(grey, int) else Luminance.of(grey)
    behind, opacity = around
    if not isinstance(shade, int) and isinstance(alpha, int) and alpha == 255:
        return Luminance(shade, top, left, whole, np.uint8(behind))
    if opacity or isinstance(alpha, int):
        return None
    part, background = _composite(shade, alpha)
    return Luminance(part, top, left, whole, background)


def _open(picture: bytes | Image.Image, limits: Limits) -> Image.Image:
    if isinstance(picture, Image.Image):
        check_pixels("The picture", *picture.size, limits.max_pixels)
        load(picture)
        return ImageOps.exif_transpose(picture)
    if not isinstance(picture, bytes | bytearray | memoryview):
        raise UnsupportedImageError(
            "a picture is a path, bytes, a Pillow image or a uint8 array, not "
            f"{type(picture).__name__}"
        )
    if not picture:
        raise UnreadableImageError("The picture is empty: 0 bytes.")
    if len(picture) > limits.max_bytes:
        raise ImageTooLargeError(
            f"The picture has {len(picture):,} bytes; the limit is {limits.max_bytes:,}. "
            "Send a smaller picture or raise INKDIGITS_MAX_BYTES."
        )
    return decode(bytes(picture), limits.max_pixels, limits.max_scans)


def _read(path: Path, limits: Limits) -> bytes:
    try:
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise ImageTooLargeError(
                f"{path} has {size:,} bytes; the limit is {limits.max_bytes:,}. "
                "Send a smaller picture."
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


def _samples(image: Image.Image) -> Grey | tuple[Pixels, Pixels]:
    """Return a picture's luminance (H, W), or luminance and opacity if it is transparent."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _wide_samples(np.asarray(image))
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        return np.asarray(image.convert("L")), np.asarray(image.getchannel("A"))
    if image.mode not in ("1", "L", "P", "RGB"):
        image = image.convert("RGB")
    return np.asarray(image.convert("L"))


def _wide_samples(samples: npt.NDArray[np.generic]) -> Floats:
    low, high = float(samples.min()), float(samples.max())
    if not np.isfinite([low, high]).all() or low < 0 or high > 65535:
        raise UnsupportedImageError(
            f"The samples run from {low:g} to {high:g}; supported are 0-1 (float), 0-255 and "
            "0-65535. Save the picture as 8-bit PNG."
        )
    levels = samples.astype(np.float32)
    if samples.dtype.kind == "f" and high <= 1:
        levels *= 255.0
    elif high > 255:
        levels /= 257.0
    return levels


def _composite(shade: Pixels | int, alpha: Pixels) -> tuple[Grey, np.uint8 | np.float32]:
    """Put luminance and opacity (H, W) on what makes the ink visible; return that shade too."""
    if alpha.min() == 255 and not isinstance(shade, int):
        return shade, np.uint8(255)
    behind = _background_behind(shade, alpha)
    if behind is None:
        return np.full_like(alpha, 255), np.uint8(255)
    background = np.float32(behind)
    # In place, since each copy of a large picture takes 100 MB.
    share = alpha.astype(np.float32)
    share /= 255.0
    composited = np.multiply(shade, share, dtype=np.float32)
    np.subtract(1.0, share, out=share)
    share *= background
    composited += share
    return composited, background


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
    mask = Image.fromarray(visible.view(np.uint8))
    counts = np.cumsum(Image.fromarray(shade).histogram(mask))
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
