"""Pairs of a picture and its ink, whose coverage is known because the picture was made from it.

A picture is written by pens (``foreground``) on paper with marks (``marks``). It lies in a scene
and in light, and a camera or a scanner takes it. Most have one digit. Others have several digits at
every distance, size and darkness, tiny ones, digits cut off by the edge, other signs, or no ink.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageFilter

from inkdigits.data.pictures.capture import Captured, capture, compress, turn
from inkdigits.data.pictures.foreground import Sources, log_uniform
from inkdigits.data.pictures.marks import (
    print_boxes,
    print_edge,
    print_lines,
    print_pattern,
    print_text,
    scatter_specks,
)
from inkdigits.data.pictures.objects import lay_objects
from inkdigits.data.pictures.surroundings import (
    Scene,
    add_edges,
    grain_of,
    light_of,
    shadow_of,
    sheet_of,
    surroundings,
)
from inkdigits.data.pictures.writing import Bounds, Writing, inner_box, write
from inkdigits.data.pixels import blend_ink, enlarge, to_bytes
from inkdigits.types import Floats, Pixels, Rng

# How often each kind of picture is made.
KINDS = {
    "one": 0.32,
    "tiny": 0.10,
    "several": 0.15,
    "pair": 0.09,  # the second one smaller, fainter or far away
    "sign": 0.04,
    "cut": 0.04,  # leaves the picture by an edge
    "empty": 0.26,
}
Look: TypeAlias = Literal["canvas", "plain", "paper", "scene"]
"""A clean canvas; one with marks; paper in any light; paper whose edges show."""
# The share of pictures on a background of one shade: canvases and scans, with marks; and of the
# others those in a scene.
_PLAIN, _IN_SCENE = 0.3, 0.22
# The deviation of a digit's centre in the map of centres, relative to the digit's height.
_CENTRE_SPREAD = 0.13


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A picture and what is written in it."""

    picture: Pixels  # (H, W)
    ink: Floats  # (H, W), how much of each pixel ink covers, 0 to 1
    centres: tuple[tuple[float, float, float], ...]  # of each digit: x, y and height, in pixels
    digits: tuple[int, ...] = ()  # which digit each is
    cut: float = 0.0  # the share of a digit's ink that is outside of the picture


def make_pair(
    rng: Rng,
    sources: Sources,
    kind: str | None = None,
    look: Look | None = None,
    sign: Floats | None = None,
) -> Pair:
    """Make a picture of one of ``KINDS``, 24 to 700 pixels the longer side.

    None draws the kind, and any look but "canvas". ``sign`` is a patch that is written instead of
    what the kind has.

    >>> pair = make_pair(np.random.default_rng(0), Sources(), "one")
    >>> pair.picture.shape == pair.ink.shape, len(pair.digits)
    (True, 1)
    """
    kind = kind or _drawn_kind(rng)
    while True:
        shape, height = _sizes(kind, rng)
        written = write(kind, shape, height, rng, sources, sign)
        is_plain = rng.random() < (_PLAIN if kind != "tiny" else 0.1)
        if look == "canvas":
            pair = _pair((Image.fromarray(blend_ink(written.darkness, rng)), written.ink,
                          written.boxes), written)  # fmt: skip
        elif look == "plain" or (look is None and is_plain):
            pair = _on_plain(kind, written, rng, sources)
        else:
            pair = _on_paper(kind, written, rng, sources, look)
        is_there = bool(pair.digits) or sign is not None or kind not in ("one", "tiny")
        if is_there and _is_visible(pair):
            return pair


def _drawn_kind(rng: Rng) -> str:
    at = rng.random() * sum(KINDS.values())
    for kind, share in KINDS.items():
        at -= share
        if at < 0:
            return kind
    return "one"


def _sizes(kind: str, rng: Rng) -> tuple[tuple[int, int], float]:
    """Return the picture's height and width, and the height of its digits."""
    longer = rng.uniform(280, 700) if kind == "tiny" else log_uniform(rng, 40, 420)
    aspect = 1.0 if rng.random() < 0.4 else rng.uniform(0.6, 1.6)
    if kind == "several":
        longer, aspect = max(longer, 80), log_uniform(rng, 0.8, 6.0)
    height = max(24, round(longer * min(1.0, 1 / aspect)))
    width = max(24, round(longer * min(1.0, aspect)))
    if kind == "tiny":
        digit = min(height, width) * log_uniform(rng, 0.025, 0.22)
    elif rng.random() < 0.2:
        digit = height * rng.uniform(0.8, 1.0)
    else:
        digit = height * rng.uniform(0.25, 0.9)
    return (height, width), max(9.0, digit)


def _on_plain(kind: str, written: Writing, rng: Rng, sources: Sources) -> Pair:
    """Put it on a canvas or a clean scan, with lines, frames, print, specks and black corners."""
    chance = rng.random
    paper = float(rng.choice([255, 255, 255, 0, 250, 235, 20]))
    pen = rng.uniform(0, 0.55 * paper) if paper > 128 else rng.uniform(0.5 * (255 + paper), 255)
    if chance() < 0.4:
        pen = 255.0 - paper
    surface = np.full(written.ink.shape, paper, np.float32)
    box, inner = written.box, inner_box(written)
    scale = inner[3] - inner[1]
    if chance() < 0.4 if kind != "empty" else chance() < 0.6:
        print_boxes(surface, inner, pen, rng, is_empty=kind == "empty")
    if chance() < 0.2:
        print_lines(surface, scale, pen, rng)
    if chance() < 0.12:
        print_edge(surface, pen, rng)
    if sources.fonts and chance() < (0.12 if kind != "empty" else 0.4):
        print_text(surface, box, scale, pen, rng, sources.fonts)
    if chance() < 0.25:
        scatter_specks(surface, scale, pen, rng)
    if kind == "empty" and chance() < 0.15:
        lay_objects(surface, None, rng)
    surface += written.darkness * (np.float32(pen) - surface)
    image, ink, boxes = Image.fromarray(to_bytes(surface)), written.ink, written.boxes
    if chance() < 0.25:
        image, ink, boxes = turn(image, ink, boxes, rng)
    if chance() < 0.25:
        image = compress(image, rng)
    if chance() < 0.1:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    return _pair((image, ink, boxes), written)


def _on_paper(kind: str, written: Writing, rng: Rng, sources: Sources, look: Look | None) -> Pair:
    """Photograph or scan it: grain, print, a scene, the pen's pressure, light, a camera."""
    chance = rng.random
    shape = (written.ink.shape[0], written.ink.shape[1])
    paper, pen = _shades(rng)
    surface = np.full(shape, paper, np.float32)
    grain = grain_of(shape, rng) if chance() < 0.55 else None
    if grain is not None:
        surface += np.float32(paper * rng.uniform(0.01, 0.07)) * grain
    if chance() < 0.15:  # stains and clouds
        cloud = enlarge(rng.random((rng.integers(2, 9), rng.integers(2, 9))), shape)
        surface *= 1 - np.float32(rng.uniform(0.1, 0.4)) * cloud
    inner, box = inner_box(written), written.box
    _mark(kind, surface, inner, box, pen, rng, sources)
    if chance() < {None: _IN_SCENE, "scene": 1}.get(look, 0):
        _put_in_scene(surface, inner, paper, rng)
    darkness = written.darkness
    if grain is not None and chance() < 0.4:
        darkness = darkness * np.clip(0.85 + rng.uniform(0.05, 0.4) * grain, 0, 1)
    if chance() < 0.15:
        pressure = enlarge(rng.random((4, 4)), shape)
        darkness = darkness * (1 - np.float32(rng.uniform(0.2, 0.6)) * pressure)
    surface += darkness * (np.float32(pen) - surface)
    if chance() < 0.25:
        scatter_specks(surface, inner[3] - inner[1], pen, rng)
    if chance() < 0.12:
        whole = (round(inner[0]), round(inner[1]), round(inner[2]), round(inner[3]))
        add_edges(surface, paper, whole, rng)
    if chance() < 0.6:
        surface *= light_of(shape, rng)
    if chance() < 0.2:
        surface *= shadow_of(shape, rng)
    return _pair(capture(surface, written, abs(pen - paper), rng), written)


def _shades(rng: Rng) -> tuple[float, float]:
    """Return the reflected light of paper and pen, of 255."""
    is_chalk = rng.random() < 0.15
    if is_chalk:
        paper, pen = rng.uniform(15, 100), rng.uniform(150, 250)
    else:
        paper = rng.uniform(85, 180) if rng.random() < 0.3 else rng.uniform(180, 250)
        pen = rng.uniform(0, 0.55 * paper)
    if rng.random() < 0.28:  # pencil
        contrast = rng.uniform(14, 60)
        pen = paper + contrast if is_chalk else max(0.0, paper - contrast)
    return paper, pen


def _mark(
    kind: str,
    surface: Floats,
    inner: Bounds,
    box: Bounds | None,
    pen: float,
    rng: Rng,
    sources: Sources,
) -> None:
    chance, scale = rng.random, inner[3] - inner[1]
    more = 1.6 if kind == "empty" else 1.0
    if chance() < 0.16:
        print_pattern(surface, scale, pen, rng)
    if chance() < 0.22 * more:
        print_lines(surface, scale, pen, rng)
    if chance() < (0.27 * more if kind != "tiny" else 0.12):
        print_boxes(surface, inner, pen, rng, is_empty=kind == "empty")
    if chance() < 0.05 * more:
        print_edge(surface, pen, rng)
    if sources.fonts and chance() < 0.16 * more:
        print_text(surface, box, scale, pen, rng, sources.fonts)
    if chance() < 0.12 * more:
        lay_objects(surface, box, rng)


def _put_in_scene(surface: Floats, inner: Bounds, paper: float, rng: Rng) -> None:
    """Lay the paper on a table, or hang it on a wall, so that its edges show."""
    shape = (surface.shape[0], surface.shape[1])
    size = max(inner[2] - inner[0], inner[3] - inner[1])
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    box = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
    scene: Scene = "table" if rng.random() < 0.55 else "note"
    shade = paper if paper > 100 and rng.random() < 0.8 else rng.uniform(60, 400)
    behind = np.broadcast_to(surroundings(scene, shade, shape, rng), shape).copy()
    if rng.random() < 0.3:
        lay_objects(behind, None, rng)
    sheet = sheet_of(scene, box, shape, rng)
    surface += (1 - sheet) * (behind - surface)


def _pair(captured: Captured, written: Writing) -> Pair:
    image, ink, boxes = captured
    centres = tuple(((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[3] - b[1]) for b in boxes)
    return Pair(np.asarray(image), ink, centres, tuple(written.digits), written.cut)


def _is_visible(pair: Pair) -> bool:
    """Return whether ink, where there is some, can be told from what is around it at all."""
    peak = float(pair.ink.max())
    if peak < 0.05:
        return True
    inked = pair.ink > 0.5 * peak
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    reach = max(2, int(0.06 * (rows[-1] - rows[0] + 1)))
    area = (
        slice(max(0, int(rows[0]) - reach), int(rows[-1]) + reach + 1),
        slice(max(0, int(columns[0]) - reach), int(columns[-1]) + reach + 1),
    )
    shades, ink = pair.picture[area].astype(np.float32), inked[area]
    around = shades[pair.ink[area] < 0.05]
    if not around.size:
        return True
    middle = float(np.median(around))
    spread = 1.4826 * float(np.median(np.abs(around - middle)))
    # Of the 24 in 1,000 that differed by less than the spread a person can read a third.
    return abs(float(np.median(shades[ink])) - middle) > max(5.0, spread)


def centre_map(pair: Pair) -> Floats:
    """Return (H, W) float32, 1 at the centre of each digit and falling off around it.

    >>> pair = Pair(np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.float32), ((4.5, 4.5, 8.0),))
    >>> float(centre_map(pair).max())
    1.0
    """
    height, width = pair.ink.shape
    centres = np.zeros((height, width), np.float32)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    for x, y, digit in pair.centres:
        spread = 2 * (_CENTRE_SPREAD * digit) ** 2
        down, across = np.exp(-((rows - y) ** 2) / spread), np.exp(-((columns - x) ** 2) / spread)
        np.maximum(centres, np.outer(down, across), out=centres, casting="same_kind")
    return centres
