"""The groups of digits that calibrate: of clerks, of pupils, and of those that look otherwise.

All are read as a user's pictures are, and none has trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch

from inkdigits.data.corruptions import corrupt_mildly
from inkdigits.data.fonts import find_fonts
from inkdigits.data.mnist import FIRST_PUPIL, Digits
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import Look, make_pair
from inkdigits.data.synthesis import Material
from inkdigits.ink.normalize import find, is_certain
from inkdigits.ink.segment import Segmenter
from inkdigits.types import Pixels, Rng


def calibration_groups(material: Material, seed: int, n: int) -> tuple[Digits, dict[str, Digits]]:
    """Return the digits that calibrate, and digits of each group that are made from them, as ink.

    Census clerks and school pupils are told apart where the writers are known. Groups that are
    made have about ``n`` digits; there are none if it is 0. Digits in which no ink is found are
    left out, as rejected as blank, and those whose ink is not certain are not accepted.

    >>> one = Digits(torch.full((1, 28, 28), 255, dtype=torch.uint8), torch.tensor([1]))
    >>> list(calibration_groups(Material(one), seed=0, n=4)[1])
    ['mildly corrupted', 'drawn', 'photographed']
    """
    rng, given = np.random.default_rng(seed), material.digits
    find = partial(_preprocessed, material.find_ink())
    inks, labels = given.inks.numpy(), given.labels
    clean = find(inks, labels, given.writers)
    groups: dict[str, Digits] = {}
    if not n:
        return clean, groups
    if clean.writers is not None:
        pupils = clean.writers >= FIRST_PUPIL
        groups = {"census clerks": clean[~pupils], "school pupils": clean[pupils]}
    some = rng.permutation(len(inks))[:n]
    groups["mildly corrupted"] = find(corrupt_mildly(inks[some], rng), labels[some])
    fonts = find_fonts("validation")
    on_paper, hands = Sources(inks, labels.numpy(), fonts, styles=False), material.hands
    # Other hands' digits are each drawn as often as any other: no odd one shall count many times.
    of_hands = [Sources(hands=hands.one(i), styles=False) for i in rng.permutation(len(hands))]
    made: dict[str, tuple[list[Sources], Look]] = {
        "drawn": ([Sources()], "canvas"),
        "photographed": ([on_paper], "paper"),
        "other hands": (of_hands, "canvas"),
    }
    for name, (sources, look) in made.items():
        drawn = [_picture(each, look, rng) for each in islice(cycle(sources), n)]
        digits = torch.tensor([digit for _, digit in drawn], dtype=torch.int64)
        groups[name] = find((picture for picture, _ in drawn), digits)
    return clean, {name: of for name, of in groups.items() if len(of)}


def _picture(sources: Sources, look: Look, rng: Rng) -> tuple[Pixels, int]:
    while True:
        pair = make_pair(rng, sources, "one", look)
        if len(pair.digits) == 1:
            return pair.picture, pair.digits[0]


def _preprocessed(
    segmenter: Segmenter,
    pictures: Iterable[Pixels],
    labels: torch.Tensor,
    writers: torch.Tensor | None = None,
) -> Digits:
    """Return the ink of a user's pictures like these, without those where none is found."""
    inks, certain = [], []
    for picture in pictures:
        ink, foreground = find(picture, segmenter)
        inks.append(ink)
        certain.append(is_certain(foreground))
    made = torch.from_numpy(np.array(inks, dtype=np.uint8).reshape(-1, 28, 28))
    digits = Digits(made, labels, writers, torch.tensor(certain, dtype=torch.bool))
    return digits[(made > 0).flatten(1).any(dim=1)]
