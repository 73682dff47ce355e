"""How long does the shipped network take for a picture, beside MNISTClassifier?

Both run on ONNX Runtime with one thread, one prepared picture at a time, in turns. The figure is
the median of the rounds, in microseconds per picture. "With augmentation" is the reader's own way,
which reads doubtful pictures again by test-time augmentation. MNISTClassifier has random weights,
because its time does not depend on them.

    python benchmarks/latency.py --data data [--json benchmarks/latency.json]
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
from results import options, write

import inkdigits
from inkdigits.data.mnist import load_splits
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import read_artifact
from inkdigits.model.backends import OnnxBackend
from inkdigits.model.networks import MNISTClassifier
from inkdigits.training.export import export

PICTURES = 1000


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path, help="artifact; default: the shipped one")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()

    inks = load_splits(chosen.data).validation.inks.numpy()[:PICTURES]
    pictures = [standardise(ink[np.newaxis]) for ink in inks]
    reader = inkdigits.load(chosen.model)
    plain = export(MNISTClassifier().state_dict(), 1.0, DecisionPolicy(None, 0.001, 0.95), {})
    readers = {
        "MNISTClassifier": OnnxBackend(plain, threads=1).logits,
        "shipped network": OnnxBackend(read_artifact(chosen.model), threads=1).logits,
        "shipped, with augmentation": reader.logits,
    }
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(chosen.rounds + 1):
        for name, read in readers.items():
            began = time.perf_counter()
            for picture in pictures:
                read(picture)
            seconds[name].append((time.perf_counter() - began) / len(pictures))
    # The first round warms up.
    micros = {name: 1e6 * statistics.median(taken[1:]) for name, taken in seconds.items()}
    ratios = {name: value / micros["MNISTClassifier"] for name, value in micros.items()}
    for name, value in micros.items():
        print(f"{name:<28} {value:6.0f} µs  {ratios[name]:.2f} times")
    content = {"model_version": reader.model_version, "pictures": PICTURES}
    content |= {"rounds": chosen.rounds, "microseconds": micros, "ratios": ratios}
    write(chosen.json, content)


if __name__ == "__main__":
    main()
