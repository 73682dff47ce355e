"""Draws the README's picture: what people send, what a demo answers, and what Inkdigits answers.

Both have the shipped network. The demo is that of `peers/`: it crops with Pillow and takes the
likeliest digit, and knows no other answer.

python benchmarks/reads.py --data data --out docs/images/reads.png
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import inkdigits
from inkdigits.calibration.temperature import probabilities
from inkdigits.data.mnist import load_splits
from inkdigits.data.pen_strokes import spline
from inkdigits.data.pictures.foreground import Sources, draw
from inkdigits.data.pictures.numbers import WrittenDigits, write_numbers
from inkdigits.data.pictures.pairs import make_pair
from inkdigits.evaluation.plots import BLUE, VERMILION
from inkdigits.ink.png import encode_png

sys.path.append(str(Path(__file__).parent / "peers"))
from reading import prepare

B = ((0, 1), (0, 0.02)), ((0, 0), (0.55, 0.1), (0.5, 0.4), (0.05, 0.48))
B_BELOW = (0.05, 0.48), (0.65, 0.55), (0.62, 0.92), (0, 1)
SEED = 13


def pictures(data: Path) -> dict[str, tuple[np.ndarray, str]]:
    """Return pictures with what they show; the digits are MNIST's calibration digits."""
    rng = np.random.default_rng(SEED)
    part = load_splits(data, by="pictures").calibration
    digits = WrittenDigits(part.inks.numpy(), part.labels.numpy())
    four = digits.inks[np.flatnonzero(digits.labels == 4)[3]]
    number = write_numbers(digits, 1, rng, "spaced", lengths=(2, 2), signs=0)[0]
    lines = [160 * spline(np.array(line, float)) for line in (*B, B_BELOW)]
    letter = np.pad(np.uint8(255 * draw(lines, 12.0, rng)), 40)
    sources = Sources(four[np.newaxis], np.array([4]), styles=False)
    return {
        "a digit": (np.asarray(Image.fromarray(255 - np.pad(four, 6)).resize((240, 240))), "4"),
        "photographed": (make_pair(rng, sources, "one", "scene").picture, "4"),
        "a letter": (255 - letter, "not a digit"),
        "two digits": (number.picture, f"several digits: {number.text}"),
        "nothing": (np.full((240, 240), 255, np.uint8), "blank"),
        "an empty sheet": (make_pair(rng, sources, "empty", "scene").picture, "blank"),
    }


def share(confidence: float) -> str:
    """Return it in percent, rounded down, so that nothing is shown as certain."""
    return f"{int(1000 * confidence) / 10:.1f} %"


def by_demo(reader: inkdigits.DigitReader, picture: bytes) -> tuple[str, str]:
    """Return the likeliest digit and its softmax."""
    found = probabilities(reader.logits(prepare(picture))[:, :10], 1.0)[0]
    return str(found.argmax()), share(found.max())


def by_inkdigits(reader: inkdigits.DigitReader, picture: bytes) -> tuple[str, str]:
    p = reader.predict(picture)
    if p.reason == "several_digits":
        return f"several digits: {reader.read(picture).text}", p.decision
    said = str(p.digit) if p.reason is None else p.reason.replace("_", " ")
    return said, f"{share(p.confidence)}, {p.decision}" if p.reason is None else p.decision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/reads.png"))
    chosen = parser.parse_args()
    reader, sent = inkdigits.load(), pictures(chosen.data)
    figure = Figure(figsize=(11.4, 3.7), facecolor="white")
    axes = figure.subplots(1, len(sent), subplot_kw={"xticks": [], "yticks": []})
    figure.subplots_adjust(left=0.09, right=0.99, top=0.9, bottom=0.38, wspace=0.1)
    for axis, (name, (picture, truth)) in zip(axes, sent.items(), strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255, aspect="auto")
        axis.set_title(name, fontsize=11)
        for height, answer in ((-0.15, by_demo), (-0.5, by_inkdigits)):
            said, detail = answer(reader, encode_png(picture))
            print(f"{name}: {answer.__name__} {said} ({detail})")
            colour = BLUE if said == truth else VERMILION
            size = 22 if len(said) == 1 else 11
            where = {"transform": axis.transAxes, "ha": "center", "va": "center", "color": colour}
            axis.text(0.5, height, said, fontsize=size, fontweight="bold", **where)
            axis.text(0.5, height - 0.15, detail, fontsize=9, **where)
    for height, name in ((0.28, "an MNIST\ndemo"), (0.1, "Inkdigits")):
        figure.text(0.045, height, name, fontsize=11, ha="center", va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150)
    Image.open(buffer).convert("RGB").quantize(96, dither=0).save(chosen.out, optimize=True)
    print(f"wrote {chosen.out}, {chosen.out.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
