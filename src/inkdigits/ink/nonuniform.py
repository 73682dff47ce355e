"""Ink on paper whose shade is another from place to place: photographs, scans, textures.

Something tiny is looked for only where nothing of a digit's usual size is found.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from inkdigits.ink.background import find_paper, reduced
from inkdigits.ink.page import Part, find_sheet
from inkdigits.ink.select import JUDGED_SIZE, written
from inkdigits.types import Floats


def lift_from_sheet(grey: Floats) -> Floats | None:
    """As ``lift_ink``, of what is written on a sheet; None also where there is no sheet."""
    parts = find_sheet(grey)
    if parts is None:
        return None
    sheet, shaded = parts
    found = lift_ink(sheet.picture, sheet)
    # Two digits, one of them in a shadow, must both stay.
    if found is None or (shaded is not None and lift_ink(shaded.picture, tiny=False) is not None):
        return None
    return found


def lift_ink(grey: Floats, part: Part | None = None, *, tiny: bool = True) -> Floats | None:
    """What is written in a picture, without its paper.

    Args:
        grey: (H, W) float32, 0 to 255.
        part: what the picture is of, where it's a part of another; ink that leaves it is none.
        tiny: whether to look for something tiny too.

    Returns:
        (h, w) float32, the part of the picture with ink: contrast with the paper, 0 where nothing
        is written; None where there is nothing at all.
    """
    height, width = grey.shape
    small = reduced(grey, JUDGED_SIZE, reducing_gap=3.0)
    paper = find_paper(grey, None if part is None else part.sign)
    standing_out = paper.standing_out(small)
    kept = written(*standing_out)
    if kept is None and tiny:
        kept = written(*standing_out, tiny=True)
        if kept is None:
            # A lamp's light outweighs a tiny digit where its side of the paper's shade is judged.
            paper = find_paper(grey, -paper.sign)
            kept = written(*paper.standing_out(small), tiny=True)
    if kept is None:
        return None
    if part is not None and part.is_left_by(kept):
        return None
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    there = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    left, top, right, bottom = (
        round(float(at) * full / judged)
        for at, full, judged in zip(there, (width, height) * 2, small.shape[::-1] * 2, strict=True)
    )
    grid_height, grid_width = paper.shade.shape
    box = (
        left / width * grid_width,
        top / height * grid_height,
        right / width * grid_width,
        bottom / height * grid_height,
    )
    mask = Image.fromarray(kept[there[1] : there[3], there[0] : there[2]].astype(np.float32))
    soft = np.asarray(mask.resize((right - left, bottom - top), Image.Resampling.BILINEAR))
    lifted: Floats = paper.ink(grey[top:bottom, left:right], box) * soft
    return lifted
