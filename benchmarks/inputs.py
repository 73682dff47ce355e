"""Does the form in which users send a digit (size, polarity, JPEG, transparency) cost accuracy?

Each of MNIST's 10,000 test digits is encoded in each form and read by `DigitReader.predict_batch`,
as the service reads it. "tensor" is the network on MNIST's own 28x28 arrays.

    python benchmarks/inputs.py --data data [--json benchmarks/inputs.json]
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from results import fail, options, write

import inkdigits
from inkdigits.calibration.intervals import wilson_interval
from inkdigits.data.mnist import load_splits

LOSS_LIMIT_POINTS = 0.10
"""Percentage points that a form may be below the tensor's accuracy."""


def encode(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def enlarged(ink: np.ndarray, size: int = 280) -> Image.Image:
    return Image.fromarray(ink).resize((size, size), Image.Resampling.BICUBIC)


def on_transparency(ink: np.ndarray, shade: int) -> bytes:
    flat = Image.new("L", (280, 280), shade)
    return encode(Image.merge("RGBA", (flat, flat, flat, enlarged(ink))))


def in_a_corner(ink: np.ndarray, size: int) -> bytes:
    page = Image.new("L", (200, 300), 255)
    page.paste(Image.fromarray(255 - np.asarray(enlarged(ink, size))), (200 - size, 300 - size))
    return encode(page)


FORMS: dict[str, Callable[[np.ndarray], bytes]] = {
    "28x28 PNG": lambda ink: encode(Image.fromarray(ink)),
    "28x28 PNG, inverted": lambda ink: encode(Image.fromarray(255 - ink)),
    "280x280 PNG (bicubic)": lambda ink: encode(enlarged(ink)),
    "280x280 PNG, inverted": lambda ink: encode(Image.fromarray(255 - np.asarray(enlarged(ink)))),
    "280x280, white ink on transparent": lambda ink: on_transparency(ink, 255),
    "280x280, black ink on transparent": lambda ink: on_transparency(ink, 0),
    "280x280 JPEG, quality 50": lambda ink: encode(enlarged(ink), "JPEG", quality=50),
    "200x300, 28x28 digit in a corner": lambda ink: in_a_corner(ink, 28),
    "200x300, 100x100 digit in a corner": lambda ink: in_a_corner(ink, 100),
}


def main() -> None:
    chosen = options(__doc__, of_model=True).parse_args()
    test = load_splits(chosen.data).test
    inks, labels = test.inks.numpy(), test.labels.numpy()
    reader = inkdigits.load(chosen.model, threads=2)
    tensor = reader.logits_and_features(inks)[0].argmax(axis=1)
    correct_of_tensor = int((tensor == labels).sum())
    rows = []
    print(f"{reader.model_version}, n = {len(labels):,}, 95 % Wilson intervals")
    for name in ("tensor", *FORMS):
        read = tensor
        if name != "tensor":
            answers = reader.predict_batch([FORMS[name](ink) for ink in inks])
            read = np.array([-1 if a.digit is None else a.digit for a in answers])
        correct = int((read == labels).sum())
        low, high = wilson_interval(correct, len(labels))
        row = {"form": name, "n": len(labels), "n_correct": correct}
        row |= {"accuracy": correct / len(labels), "low": low, "high": high}
        row["points_from_tensor"] = 100 * (correct - correct_of_tensor) / len(labels)
        row["read_otherwise"] = int((read != tensor).sum())
        rows.append(row)
        print(f"{name:<36} {row['accuracy']:8.2%} {row['points_from_tensor']:+7.2f}", flush=True)
    write(chosen.json, {"model_version": reader.model_version, "rows": rows})
    fail([row["form"] for row in rows if row["points_from_tensor"] < -LOSS_LIMIT_POINTS - 1e-9])


if __name__ == "__main__":
    main()
