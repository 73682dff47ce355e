"""How the reader holds up beyond clean MNIST: corruptions, other hands, what isn't a digit.

The fifteen corruptions of MNIST-C, in its own severities and in the mildest; digits drawn by
code; scikit-learn's; and pictures to reject, letters and symbols from fonts held back from
training. All go through ``DigitReader.predict_batch`` as encoded PNGs. MNIST-C's published files
aren't read: the corruptions are implemented from their description (inkdigits/corruptions.py).

    python benchmarks/robustness.py --data data [--json benchmarks/robustness.json]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import inkdigits
from inkdigits.data.fonts import find_fonts
from inkdigits.data.mnist import load_splits
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.evaluation.plots import robustness_figure, save
from inkdigits.evaluation.robustness import SEED, measure_corruptions, measure_robustness


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--model", type=Path, help="artifact; default: the shipped one")
    parser.add_argument(
        "--part",
        choices=["test", "validation"],
        default="test",
        help="whose digits; validation while something is still being chosen",
    )
    parser.add_argument("--per-family", type=int, default=10_000, help="pictures, at most")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--figure", type=Path, help="file for the drawing")
    options = parser.parse_args()

    digits = getattr(load_splits(options.data), options.part)
    reader = inkdigits.load(options.model, threads=2)
    sample = digits.inks.numpy(), digits.labels.numpy()
    settings = {
        "per_family": options.per_family,
        "report": lambda line: print(line, flush=True),
    }
    mnist_c = measure_robustness(reader, *sample, **settings)
    print(f"\n{reader.model_version}, {options.part}\n\n{mnist_c.table()}\n", flush=True)
    scores = measure_corruptions(reader, *sample, severities=(1,), **settings)
    mild = {
        "digits": [asdict(row) for row in scores],
        "corruption_accuracy": fmean(row.accuracy.value for row in scores),
    }
    print(f"mean of the corruptions in severity 1: {100 * mild['corruption_accuracy']:.2f} %")
    if options.figure:
        save(robustness_figure(mnist_c), options.figure)
    if options.json:
        content = {
            "model_version": reader.model_version,
            "part": options.part,
            "per_family": options.per_family,
            "seed": SEED,
            "held_back_fonts": sorted({font.family for font in find_fonts("held_back")}),
            "hardware": hardware(),
            "versions": versions(),
            "mnist_c": mnist_c.to_dict(),
            "mild": mild,
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
