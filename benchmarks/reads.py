"""Draws the README's picture: what users send, the ink that the model saw, what it read.

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


def scene(ink: np.ndarray, kind: str, rng: np.random.Generator) -> Image.Image:
    """One digit of the calibration split in a form that somebody might send."""
    large = Image.fromarray(ink).resize((160, 160), Image.Resampling.BICUBIC)
    mask = np.asarray(large, dtype=np.float32)[..., None] / 255
    paper = np.full((240, 240, 3), 255, np.float32)
    alpha = np.zeros((240, 240, 1), np.float32)
    y, x = (72, 76) if kind == "corner" else (40, 40)
    alpha[y : y + 160, x : x + 160] = mask
    colour = np.array([20, 20, 20], np.float32)
    if kind == "pen":
        paper = rng.normal((238, 234, 222), 4, (240, 240, 3)).astype(np.float32)
        colour = np.array([35, 60, 150], np.float32)
    elif kind == "chalk":
        paper = rng.normal((46, 70, 58), 5, (240, 240, 3)).astype(np.float32)
        colour = np.array([232, 236, 228], np.float32)
    elif kind == "pencil":
        paper = rng.normal(235, 3, (240, 240, 1)).repeat(3, 2).astype(np.float32)
        colour = np.array([150, 150, 154], np.float32)
    elif kind == "corner":
        paper[...] = 255
    image = Image.fromarray(np.clip(paper * (1 - alpha) + colour * alpha, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(1.2)) if kind == "pencil" else image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/reads.png"))
    options = parser.parse_args()
    rng = np.random.default_rng(3)
    digits = load_splits(options.data).calibration
    reader = inkdigits.load()
    kinds = ["pen", "chalk", "pencil", "table", "corner", "drawn", "blank"]
    picks = [int((digits.labels == d).nonzero()[3]) for d in (3, 7, 2, 4, 5, 8)]
    figure = Figure(figsize=(11.6, 4.4), layout="constrained")
    axes = figure.subplots(2, len(kinds))
    for column, kind in enumerate(kinds):
        if kind == "blank":
            picture = Image.new("RGB", (240, 240), "white")
        elif kind == "table":
            ink = digits.inks[picks[column]].numpy()[np.newaxis]
            picture = Image.fromarray(photograph_scenes(ink, rng, "table")[0]).convert("RGB")
        else:
            picture = scene(digits.inks[picks[column]].numpy(), kind, rng)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG" if kind in ("pen", "pencil") else "PNG")
        p = reader.predict(buffer.getvalue())
        axes[0, column].imshow(picture)
        axes[1, column].imshow(p.ink, cmap="gray_r", vmin=0, vmax=255)
        sure = f"{int(1000 * p.confidence) / 10:.1f} %, {p.decision}"
        axes[1, column].set_xlabel(
            f"{p.reason}" if p.digit is None else f"{p.digit}", fontsize=20, fontweight="bold"
        )
        axes[1, column].set_title(p.decision if p.digit is None else sure, fontsize=10)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0, 0].set_ylabel("sent", fontsize=12)
    axes[1, 0].set_ylabel("what the model saw,\nand read", fontsize=12)
    save(figure, options.out)


if __name__ == "__main__":
    main()
