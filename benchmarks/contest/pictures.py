"""The pictures that every contender is sent: digits as a page's canvas sends them."""

from __future__ import annotations

import base64
import io
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from contest.contenders import PEERS_FOLDER
from inkdigits.ink.normalize import preprocess
from inkdigits.reader import DigitReader

SIDE = 280
"""Pixels a side, of a canvas for drawing."""


class Pictures:
    """Base64 of PNG files by digit, opaque and transparent in turn.

    Args:
        by_digit: for each digit its pictures.
    """

    def __init__(self, by_digit: dict[int, list[str]]) -> None:
        self._by_digit = by_digit

    def of(self, digit: int) -> list[str]:
        """A digit's pictures."""
        return self._by_digit[digit]

    def describe(self) -> dict[str, float]:
        """How many there are, and the median of their bytes as PNG."""
        every = [image for images in self._by_digit.values() for image in images]
        sizes = [len(base64.b64decode(image)) for image in every]
        return {"pictures": len(every), "median_bytes": float(np.median(sizes))}


def make(reader: DigitReader, data: Path | None, of_each: int = 16) -> Pictures:
    """Digits in black, on a white canvas and on a transparent one.

    Only those that both preprocessings, ours and the peers', get right with the network: a wrong
    answer in the run is then a server's mistake.

    Args:
        reader: ours.
        data: folder of MNIST, whose validation part is taken; None takes scikit-learn's digits.
        of_each: pictures of each digit on each ground.
    """
    inks, labels = _bundled() if data is None else _validation(data)
    found: dict[int, list[str]] = defaultdict(list)
    for ink, label in zip(inks, labels.tolist(), strict=True):
        if len(found[label]) == 2 * of_each:
            continue
        encoded = [canvas_png(ink, transparent=flag) for flag in (False, True)]
        if all(_both_read(reader, png, label) for png in encoded):
            found[label] += [base64.b64encode(png).decode() for png in encoded]
    return Pictures(dict(found))


def canvas_png(ink: np.ndarray, *, transparent: bool) -> bytes:
    """A digit (28, 28) uint8, enlarged to 280x280, as an RGBA PNG.

    Args:
        ink: 255 is the darkest ink.
        transparent: black whose opacity is the ink, on nothing; otherwise on white.
    """
    large = Image.fromarray(ink).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    if transparent:
        black = Image.new("L", large.size, 0)
        picture = Image.merge("RGBA", (black, black, black, large))
    else:
        shade = large.point(lambda value: 255 - value)
        picture = Image.merge("RGBA", (shade, shade, shade, Image.new("L", large.size, 255)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _both_read(reader: DigitReader, png: bytes, label: int) -> bool:
    sys.path.insert(0, str(PEERS_FOLDER))
    try:
        from plain import prepare
    finally:
        sys.path.remove(str(PEERS_FOLDER))
    logits = reader.logits(prepare(png)[None, None])
    return reader.predict(png).digit == label and int(logits.argmax()) == label


def _validation(data: Path) -> tuple[np.ndarray, np.ndarray]:
    from inkdigits.data.mnist import load_splits

    part = load_splits(data).validation
    return part.inks.numpy(), part.labels.numpy()


def _bundled() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    inks = [
        preprocess(np.asarray(Image.fromarray((one * 255 / 16).astype(np.uint8)).resize((80, 80))))
        for one in bundle.images[:600]
    ]
    return np.stack(inks), bundle.target[:600]
