"""Does int8 read and decide as float32 does, on pictures that chose nothing?

Digits of the calibration and validation parts in forms, corruptions, photographs and scenes, digits
drawn by code, and pictures without a digit. The seed is of this script alone. MNIST's test part is
counted last, and not in the total.

    python benchmarks/int8.py --data data [--json benchmarks/int8.json]
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from inputs import FORMS
from results import fail, options, write

import inkdigits
from inkdigits.data.corruptions import FAMILIES, MNIST_C_SEVERITY, corrupt
from inkdigits.data.fonts import find_fonts
from inkdigits.data.mnist import Splits, load_splits
from inkdigits.data.non_digits import KINDS, make_non_digits
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import make_pair
from inkdigits.decision.risk import clopper_pearson_upper
from inkdigits.errors import TrainingError
from inkdigits.model.artifact import read_artifact
from inkdigits.training.provenance import split_of
from inkdigits.training.quantise import Int8Changes, int8_changes
from inkdigits.types import Ink

SEED = 20261128


def sets(splits: Splits) -> Iterator[tuple[str, Ink]]:
    """Yield the name and the inks of each set of pictures."""
    rng = np.random.default_rng(SEED)
    digits = splits.calibration.inks.numpy()
    digits = digits[rng.permutation(len(digits))]
    yield "validation, clean", splits.validation.inks.numpy()
    for name in ("280x280 JPEG, quality 50", "200x300, 100x100 digit in a corner"):
        yield name, inks_of(map(FORMS[name], digits))
    corrupted = [corrupt(digits[:1000], f, MNIST_C_SEVERITY[f], rng) for f in FAMILIES]
    yield "15 corruptions of MNIST-C", inks_of(np.concatenate(corrupted))
    labels = np.zeros(len(digits), np.int64)  # which digits they are is not asked
    sources = Sources(digits, labels, find_fonts("held_back"))
    for name, n, look in (("photographs", 3000, "paper"), ("scenes", 1500, "scene")):
        yield name, inks_of(make_pair(rng, sources, "one", look).picture for _ in range(n))
    yield "pen strokes", inks_of(make_pair(rng, Sources(), "one", "canvas").picture
                                 for _ in range(5000))  # fmt: skip
    others = [picture for kind in KINDS for picture in make_non_digits(kind, 300, rng, sources)]
    yield "without a digit", inks_of(others)


def inks_of(pictures: object) -> Ink:
    return np.stack([inkdigits.preprocess(picture) for picture in pictures])


def row(name: str, found: Int8Changes) -> dict[str, object]:
    """Return one set's figures, with one-sided 95 % upper bounds in per cent."""
    counts = {"n": found.n, "readings": found.readings, "decisions": found.decisions}
    for what in ("readings", "decisions"):
        bound = clopper_pearson_upper(counts[what], found.n)
        counts[f"{what}_at_most_percent"] = round(100 * bound, 4)
    print(f"{name:<36}", *(f"{key} {value}" for key, value in counts.items()), flush=True)
    return {"pictures": name, **counts}


def main() -> None:
    chosen = options(__doc__, of_model=True).parse_args()
    artifact = read_artifact(chosen.model)
    reader = inkdigits.load(chosen.model)
    # The digits that these weights have not seen.
    splits = load_splits(chosen.data, by=split_of(reader.metadata.provenance))
    found = [(name, int8_changes(artifact, inks)) for name, inks in sets(splits)]
    rows = [row(name, changes) for name, changes in found]
    counts = zip(*((part.n, part.readings, part.decisions) for _, part in found), strict=True)
    total = Int8Changes(*map(sum, counts))
    rows.append(row("all of these", total))
    rows.append(row("test, clean", int8_changes(artifact, splits.test.inks.numpy())))
    write(chosen.json, {"model_version": reader.model_version, "seed": SEED, "rows": rows})
    try:
        total.check()
    except TrainingError as error:
        fail([error])


if __name__ == "__main__":
    main()
