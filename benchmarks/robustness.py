"""How does the reader hold up beyond clean MNIST: corruptions, other hands, pictures of no digit?

The fifteen corruptions of MNIST-C, in its own severities and in the mildest, digits drawn by code,
scikit-learn's digits, and pictures to reject, with letters and symbols of fonts held back from
training. All are read as encoded PNGs. The corruptions are implemented from their description
(inkdigits/data/corruptions.py); MNIST-C's published files are not read.

    python benchmarks/robustness.py --data data [--json src/inkdigits/weights/robustness.json]
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from results import options, write

import inkdigits
from inkdigits.data.fonts import find_fonts
from inkdigits.data.mnist import load_splits
from inkdigits.evaluation.plots import robustness_figure, save
from inkdigits.evaluation.robustness import SEED, measure_corruptions, measure_robustness
from inkdigits.training.provenance import split_of


def main() -> None:
    parser = options(__doc__, of_model=True)
    # Use validation while something is still being chosen.
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument("--per-family", type=int, default=10_000, help="pictures, at most")
    parser.add_argument("--figure", type=Path, help="file for the drawing")
    chosen = parser.parse_args()

    reader = inkdigits.load(chosen.model, threads=2)
    # The parts that this model learned from, not those of a run that starts today.
    splits = load_splits(chosen.data, by=split_of(reader.metadata.provenance))
    digits = getattr(splits, chosen.part)
    sample = digits.inks.numpy(), digits.labels.numpy()
    settings = {"per_family": chosen.per_family, "report": lambda line: print(line, flush=True)}
    apart = {
        "writers": None if digits.writers is None else digits.writers.numpy(),
        "hands": splits.calibration_hands,
    }
    mnist_c = measure_robustness(reader, *sample, **settings, **apart)
    print(f"\n{reader.model_version}, {chosen.part}\n\n{mnist_c.table()}\n", flush=True)
    scores = measure_corruptions(reader, *sample, severities=(1,), **settings)
    mean = fmean(row.accuracy.value for row in scores)
    print(f"mean of the corruptions in severity 1: {100 * mean:.2f} %")
    if chosen.figure:
        save(robustness_figure(mnist_c), chosen.figure)
    about = {"model_version": reader.model_version, "part": chosen.part, "seed": SEED}
    about["per_family"] = chosen.per_family
    about["held_back_fonts"] = sorted({font.family for font in find_fonts("held_back")})
    mild = {"digits": [asdict(row) for row in scores], "corruption_accuracy": mean}
    write(chosen.json, {**about, "mnist_c": mnist_c.to_dict(), "mild": mild})


if __name__ == "__main__":
    main()
