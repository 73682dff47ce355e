"""What the shipped network takes a picture, beside MNISTClassifier, second looks included.

Both run on ONNX Runtime with one thread, one prepared picture at a time, in turns; of each
contender's rounds the median counts. MNISTClassifier's weights are random: its time doesn't depend
on them. The pictures are the first of the validation split.

    python benchmarks/latency.py --data data [--json benchmarks/latency.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

import inkdigits
from inkdigits.data.mnist import load_splits
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import read_artifact
from inkdigits.model.backends import OnnxBackend
from inkdigits.model.networks import MNISTClassifier
from inkdigits.model.tta import uncertain_rows
from inkdigits.training.export import export

PICTURES = 1000
LIMIT = 2.0
"""Times MNISTClassifier's latency that the shipped model may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path, help="artifact; default: the shipped one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()

    inks = load_splits(options.data).validation.inks.numpy()[:PICTURES]
    pictures = [standardise(ink[np.newaxis]) for ink in inks]
    reader = inkdigits.load(options.model)
    policy = DecisionPolicy(None, 0.001, 0.95)
    plain = OnnxBackend(export(MNISTClassifier().state_dict(), 1.0, policy, {}), threads=1)
    bare = OnnxBackend(read_artifact(options.model), threads=1)
    contenders = {
        "MNISTClassifier": plain.logits,
        "shipped network": bare.logits,
        "shipped, with second looks": reader.logits,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds + 1):
        for name, read in contenders.items():
            started = time.perf_counter()
            for picture in pictures:
                read(picture)
            seconds[name].append((time.perf_counter() - started) / len(pictures))
    # The first round warms up.
    micros = {name: 1e6 * statistics.median(taken[1:]) for name, taken in seconds.items()}
    first = np.concatenate([bare.logits(picture) for picture in pictures])
    again = len(uncertain_rows(first, reader.metadata.second_look_margin)) / len(pictures)
    base = micros["MNISTClassifier"]
    print(
        f"{reader.model_version}, {len(pictures):,} pictures, median of {options.rounds} rounds\n"
    )
    for name, value in micros.items():
        print(f"{name:<28} {value:6.0f} µs  {value / base:.2f} times")
    print(f"\n{100 * again:.1f} % are looked at again; allowed: {LIMIT:g} times")
    if options.json:
        content = {
            "model_version": reader.model_version,
            "pictures": len(pictures),
            "rounds": options.rounds,
            "microseconds": micros,
            "ratios": {name: value / base for name, value in micros.items()},
            "looked_at_again": again,
            "hardware": hardware(),
            "versions": versions(),
        }
        options.json.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
