"""How well are numbers read: spaced, boxed, touching, photographed, in a table, beside Tesseract?

Numbers of 3 to 8 digits are written by code with MNIST's digits, each by one writer where QMNIST's
table of writers is there. Some have commas, points, dashes or a currency sign. All are read as
encoded PNGs, without hints; cells of a table are read with length 1. Tesseract reads digits only,
a line at a time.

    python benchmarks/number_reading.py --data data [--json benchmarks/number_reading.json]

--calibrate fits what decision/numbers.py has as constants (TEMPERATURE and NUMBER_POLICY) to
numbers of the calibration part, and prints them.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from results import options, write

import inkdigits
from inkdigits.calibration.intervals import wilson_interval
from inkdigits.data.mnist import load_splits
from inkdigits.data.pictures.numbers import (
    SETTINGS,
    WrittenDigits,
    WrittenNumber,
    write_numbers,
    write_table,
)
from inkdigits.decision import numbers
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.prediction import NumberReading
from inkdigits.decision.risk import accept_threshold
from inkdigits.errors import NoThresholdError
from inkdigits.ink.png import encode_png
from inkdigits.reader import DigitReader
from inkdigits.training.provenance import split_of

SEED = 19
RISKS = (0.002, 0.005, 0.006, 0.01, 0.02, 0.05)
RISK = 0.01
LEAST = 0.5  # the share of numbers that the first threshold accepts
TEMPERATURES = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4)
APART = ("spaced", "boxed", "photographed")  # numbers whose digits touch are for review
TESSERACT = "tesseract stdin stdout --psm 7 -c tessedit_char_whitelist=0123456789"


def measure(reader: DigitReader, written: Sequence[WrittenNumber], name: str, beside: int) -> Any:
    pictures = [encode_png(number.picture) for number in written]
    began = time.process_time()
    found = reader.read_batch(pictures)
    cpu_ms = (time.process_time() - began) * 1000 / len(pictures)
    right = [one.text == number.text for one, number in zip(found, written, strict=True)]
    accepted = [ok for one, ok in zip(found, right, strict=True) if one.decision == "accept"]
    n = len(right)
    low, high = wilson_interval(sum(right), n)
    theirs = None
    if beside and shutil.which("tesseract"):
        pairs = zip(pictures[:beside], written, strict=False)
        theirs = float(np.mean([tesseract(picture) == number.text for picture, number in pairs]))
    row = {"name": name, "n": n, "exact": sum(right) / n, "low": low, "high": high}
    row |= {"accepted": len(accepted), "wrong_accepted": accepted.count(False)}
    row |= {"cpu_ms": round(cpu_ms, 1), "tesseract": theirs}
    return {**row, "tesseract_n": 0 if theirs is None else min(beside, n)}


def tesseract(picture: bytes) -> str:
    environment = {"OMP_THREAD_LIMIT": "1", "PATH": "/usr/bin:/usr/local/bin"}
    given = {"input": picture, "capture_output": True, "env": environment}
    done = subprocess.run(TESSERACT.split(), **given, check=False)
    return "".join(filter(str.isdecimal, done.stdout.decode()))


def read_table(reader: DigitReader, digits: WrittenDigits, rng: np.random.Generator) -> Any:
    """Read 1,000 cells of ten tables, some of them empty."""
    filled: list[tuple[NumberReading, str]] = []
    began = time.process_time()
    for _ in range(10):
        picture, cells = write_table(digits, 10, 10, rng)
        found = reader.read_regions(encode_png(picture), [box for box, _ in cells], length=(1, 1))
        filled += zip(found, (text for _, text in cells), strict=True)
    ms = (time.process_time() - began) * 1000 / len(filled)
    there = [(one, text) for one, text in filled if text]
    accepted = [one.text == text for one, text in there if one.decision == "accept"]
    row = {"cells": len(filled), "digits": len(there)}
    row["found"] = sum(one.text == text for one, text in there)
    row |= {"accepted": len(accepted), "wrong_accepted": accepted.count(False)}
    row["invented_in_empty"] = sum(one.text != "" for one, text in filled if not text)
    return {**row, "cpu_ms_with_drawing": round(ms, 1)}


def calibrate(reader: DigitReader, digits: WrittenDigits, n: int) -> None:
    """Print the temperature with the least loss, and the thresholds that keep risks."""
    rng = np.random.default_rng(SEED)
    written = [w for name in APART for w in write_numbers(digits, n, rng, name)]
    losses = {}
    for numbers.TEMPERATURE in TEMPERATURES:
        losses[numbers.TEMPERATURE] = loss(reader, written[:: max(1, len(written) // 300)])
        print(f"temperature {numbers.TEMPERATURE}: {losses[numbers.TEMPERATURE]:.4f}", flush=True)
    numbers.TEMPERATURE = best = min(losses, key=lambda one: losses[one])
    inkdigits.reader.NUMBER_POLICY = DecisionPolicy(0.0, RISK, 0.95, unreadable_below=0.0)
    found = [reader.read(number.picture) for number in written]
    right = np.array([one.text == w.text for one, w in zip(found, written, strict=True)])
    safe = np.array([one.decision == "accept" for one in found])
    confidence = np.array([one.certainty for one in found]) * safe
    print(f"n {len(right)}, exact {right.mean():.4f}, agreed {safe.mean():.4f}")
    print(f"TEMPERATURE = {best}")
    kinds = np.repeat(APART, n)
    groups = {name: (confidence[kinds == name], right[kinds == name]) for name in APART}
    for risk in RISKS:
        try:
            print(accept_threshold(confidence, right, groups=groups, risk=risk, least=LEAST))
        except NoThresholdError as error:
            print(error)


def loss(reader: DigitReader, written: Sequence[WrittenNumber]) -> float:
    """Return the mean log loss of whether each number is right."""
    found = [reader.read(number.picture) for number in written]
    right = np.array([one.text == w.text for one, w in zip(found, written, strict=True)])
    share = np.array([one.confidence for one in found]).clip(1e-3, 1 - 1e-3)
    return float(-np.log(np.where(right, share, 1 - share)).mean())


def main() -> None:
    parser = options(__doc__, of_model=True)
    # Use validation while something is still being chosen.
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument("--n", type=int, default=400, help="numbers of each kind")
    parser.add_argument("--beside", type=int, default=100, help="numbers that Tesseract reads too")
    parser.add_argument("--calibrate", action="store_true")
    chosen = parser.parse_args()
    reader = inkdigits.load(chosen.model)
    # The calibration part is what this model's training has not seen.
    splits = load_splits(chosen.data, by=split_of(reader.metadata.provenance))
    if chosen.calibrate:
        calibrate(reader, WrittenDigits.of(splits.calibration), chosen.n)
        return
    digits = WrittenDigits.of(getattr(splits, chosen.part))
    rng = np.random.default_rng(SEED)
    rows = []
    for name in SETTINGS:
        for signs in (0.0, 1.0) if name == "spaced" else (0.3,):
            written = write_numbers(digits, chosen.n, rng, name, signs=signs)
            full = f"{name}, with signs" if signs == 1.0 else name
            rows.append(measure(reader, written, full, chosen.beside))
            print(rows[-1], flush=True)
    table = read_table(reader, digits, rng)
    print(table)
    about = {"model_version": reader.model_version, "part": chosen.part, "seed": SEED}
    write(chosen.json, {**about, "rows": rows, "table": table})


if __name__ == "__main__":
    main()
