"""Ink on a background whose shade changes from place to place: photographs, scans, textures.

Something tiny is looked for only where nothing of a digit's usual size is found.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from inkdigits.ink.background import downscale, estimate_background
from inkdigits.ink.page import Region, find_page
from inkdigits.ink.select import JUDGED_SIZE, select_digit
from inkdigits.types import Floats


def extract_ink_on_page(grey: Floats) -> Floats | None:
    """Return the ink on a page that lies on a table; None also where there is no page.

    Arguments and result are those of ``extract_ink``.

    >>> extract_ink_on_page(np.full((200, 200), 90, np.float32)) is None
    True
    """
    regions = find_page(grey)
    if regions is None:
        return None
    page, shaded = regions
    found = extract_ink(page.picture, page)
    # Two digits, one of them in a shadow, must both stay.
    if found is None:
        return None
    if shaded is not None and extract_ink(shaded.picture, with_tiny=False) is not None:
        return None
    return found


def extract_ink(
    grey: Floats, region: Region | None = None, *, with_tiny: bool = True
) -> Floats | None:
    """Return what is written in a picture, without its background.

    Args:
        grey: (H, W) float32, 0 to 255.
        region: what the picture shows a part of, if it does; ink that leaves it is rejected.
        with_tiny: whether to look for something tiny too.

    Returns:
        (h, w) float32, the part of the picture with ink: contrast with the background, 0 where
        nothing is written; None where there is no ink.

    >>> rows, columns = np.mgrid[:200, :200]
    >>> light = (120 + 0.4 * columns).astype(np.float32)
    >>> light[60:140, 95:105] = 20
    >>> ink = extract_ink(light)
    >>> 80 <= ink.shape[0] <= 90
    True
    """
    height, width = grey.shape
    small = downscale(grey, JUDGED_SIZE, reducing_gap=3.0)
    background = estimate_background(grey, None if region is None else region.sign)
    contrast = background.stroke_contrast(small)
    kept = select_digit(*contrast)
    if kept is None and with_tiny:
        kept = select_digit(*contrast, tiny=True)
        if kept is None:
            # A lamp's light outweighs a tiny digit where the ink's side of the shade is judged.
            background = estimate_background(grey, -background.sign)
            kept = select_digit(*background.stroke_contrast(small), tiny=True)
    if kept is None or (region is not None and region.is_left_by(kept)):
        return None
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    there = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (
        round(float(at) * full / judged)
        for at, full, judged in zip(there, (width, height) * 2, small.shape[::-1] * 2, strict=True)
    )
    grid_height, grid_width = background.shade.shape
    box = (
        left / width * grid_width,
        top / height * grid_height,
        right / width * grid_width,
        bottom / height * grid_height,
    )
    mask = Image.fromarray(kept[there[1] : there[3], there[0] : there[2]].astype(np.float32))
    soft = np.asarray(mask.resize((right - left, bottom - top), Image.Resampling.BILINEAR))
    ink: Floats = background.contrast(grey[top:bottom, left:right], box) * soft
    return ink
