"""Draws the README's picture: what users send, the ink that the model saw, and what it read.

python benchmarks/reads.py --data data --out docs/images/reads.png
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageFilter

import inkdigits
from inkdigits.data.mnist import load_splits
from inkdigits.data.scenes import photograph_scenes
from inkdigits.evaluation.plots import save

# The mean and the deviation of the background, and the colour of the ink, in RGB.
GROUNDS = {
    "pen": ((238, 234, 222), 4, (35, 60, 150)),
    "chalk": ((46, 70, 58), 5, (232, 236, 228)),
    "pencil": ((235, 235, 235), 3, (150, 150, 154)),
    "corner": ((255, 255, 255), 0, (20, 20, 20)),
    "drawn": ((255, 255, 255), 0, (20, 20, 20)),
}


def picture_of(ink: np.ndarray, kind: str, rng: np.random.Generator) -> Image.Image:
    """Return a digit in a form that somebody might send."""
    if kind == "blank":
        return Image.new("RGB", (240, 240), "white")
    if kind == "table":
        return Image.fromarray(photograph_scenes(ink[np.newaxis], rng, "table")[0]).convert("RGB")
    mean, deviation, colour = GROUNDS[kind]
    opacity = np.zeros((240, 240, 1), np.float32)
    y, x = (72, 76) if kind == "corner" else (40, 40)
    large = Image.fromarray(ink).resize((160, 160), Image.Resampling.BICUBIC)
    opacity[y : y + 160, x : x + 160, 0] = np.asarray(large, dtype=np.float32) / 255
    ground = rng.normal(mean, deviation, (240, 240, 3))
    mixed = ground * (1 - opacity) + np.array(colour) * opacity
    image = Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(1.2)) if kind == "pencil" else image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/reads.png"))
    chosen = parser.parse_args()
    rng = np.random.default_rng(3)
    digits = load_splits(chosen.data, by="pictures").calibration
    reader = inkdigits.load()
    kinds = {"pen": 3, "chalk": 7, "pencil": 2, "table": 4, "corner": 5, "drawn": 8, "blank": 0}
    figure = Figure(figsize=(11.6, 4.4), layout="constrained")
    axes = figure.subplots(2, len(kinds), subplot_kw={"xticks": [], "yticks": []})
    for (sent, seen), (kind, digit) in zip(axes.T, kinds.items(), strict=True):
        ink = digits.inks[int((digits.labels == digit).nonzero()[3])].numpy()
        picture, buffer = picture_of(ink, kind, rng), io.BytesIO()
        picture.save(buffer, "JPEG" if kind in ("pen", "pencil") else "PNG")
        p = reader.predict(buffer.getvalue())
        sent.imshow(picture)
        seen.imshow(p.ink, cmap="gray_r", vmin=0, vmax=255)
        read = p.reason if p.digit is None else p.digit
        seen.set_xlabel(f"{read}", fontsize=20, fontweight="bold")
        confidence = "" if p.digit is None else f"{int(1000 * p.confidence) / 10:.1f} %, "
        seen.set_title(confidence + p.decision, fontsize=10)
    axes[0, 0].set_ylabel("sent", fontsize=12)
    axes[1, 0].set_ylabel("what the model saw,\nand read", fontsize=12)
    save(figure, chosen.out)


if __name__ == "__main__":
    main()
