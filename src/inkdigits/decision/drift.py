"""Drift: whether what is read today looks like what the model was made for.

Three statistics of the ink, and the calibrated confidence, are compared with a reference by the
population stability index (PSI): with shares p of the pictures read and q of the reference in the
same bins, ``sum((p - q) * ln(p / q))``. N. Siddiqi, *Credit Risk Scorecards* (2006), has the usual
rule: below 0.1 stable, above 0.25 shifted. It is the symmetrised Kullback-Leibler divergence, and
without any shift it is about ``(bins - 1) * (1 / n + 1 / m)`` for n and m pictures (B. Yurdakul,
*Statistical Properties of Population Stability Index*, 2018), which matters for a small n.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from inkdigits.errors import DataError
from inkdigits.types import Doubles, Ink, Json

# The key of the reference in an artifact's provenance.
PROVENANCE: Final = "drift_reference"
STATISTICS: Final = ("stroke_width", "slant", "ink_share", "confidence")
# Bins of a statistic: tenths of the reference.
BINS: Final = 10
_LEAST_PICTURES: Final = 100


def statistics(inks: Ink, confidences: npt.ArrayLike) -> dict[str, Doubles]:
    """Return all statistics of some readings, by name.

    - "stroke_width", in pixels: twice the area over the perimeter, as of a long band. The
      perimeter is by Crofton's formula with two directions, pi/4 of the grey values' total
      variation along rows and columns.
    - "slant", in degrees to the right of upright: the arc tangent of the shear that would set the
      ink upright, the covariance of columns and rows over the variance of rows (D. C. Castro et
      al., *Morpho-MNIST*, JMLR 20, 2019). 0 where all ink is in one row.
    - "ink_share": mean ink, 0 to 1.
    - "confidence".

    Each of ``inks`` (N, 28, 28) has some ink; ``confidences`` (N,) are calibrated, 0 to 1.

    >>> ink = np.zeros((1, 28, 28), np.uint8)
    >>> ink[0, 4:24, 13:16] = 255
    >>> statistics(ink, [0.9])["stroke_width"].round(2)
    array([3.32])
    """
    return {
        "stroke_width": _stroke_width(inks),
        "slant": _slant(inks),
        "ink_share": inks.mean(axis=(1, 2)) / 255,
        "confidence": np.asarray(confidences, dtype=np.float64),
    }


def _stroke_width(inks: Ink) -> Doubles:
    levels = np.pad(inks, ((0, 0), (1, 1), (1, 1))).astype(np.int16)
    steps = sum(
        np.abs(np.diff(levels, axis=axis)).sum(axis=(1, 2), dtype=np.int64) for axis in (1, 2)
    )
    area = inks.sum(axis=(1, 2), dtype=np.int64)
    width: Doubles = 2 * area / (np.pi / 4 * np.asarray(steps))
    return width


def _slant(inks: Ink) -> Doubles:
    weights = inks.astype(np.float64)
    mass = weights.sum(axis=(1, 2))
    by_row, by_column = weights.sum(axis=2), weights.sum(axis=1)
    rows, columns = np.arange(inks.shape[1]), np.arange(inks.shape[2])
    row = by_row @ rows / mass
    column = by_column @ columns / mass
    variance = by_row @ rows**2 / mass - row**2
    covariance = (weights @ columns) @ rows / mass - row * column
    # Rows are counted downwards.
    shear = np.divide(-covariance, variance, out=np.zeros(len(inks)), where=variance > 1e-9)
    angle: Doubles = np.degrees(np.arctan(shear))
    return angle


def population_stability_index(counts: npt.ArrayLike, shares: npt.ArrayLike) -> float:
    """Return the PSI of counts (B,) against the reference's shares (B,); NaN without pictures.

    Half a picture per bin is added, in proportion to the reference: an empty bin would make the
    index infinite, and so the addition causes no shift by itself.

    >>> round(population_stability_index([90, 10], [0.5, 0.5]), 2)
    0.85
    """
    observed = np.asarray(counts, dtype=np.float64)
    expected = np.asarray(shares, dtype=np.float64)
    if not observed.sum() > 0:
        return float("nan")
    observed = observed + 0.5 * len(observed) * expected
    share = observed / observed.sum()
    return float(((share - expected) * np.log(share / expected)).sum())


@dataclass(frozen=True, slots=True)
class Reference:
    """One statistic of the reference."""

    mean: float
    deviation: float
    edges: tuple[float, ...]  # between the bins, rising, at most BINS - 1
    shares: tuple[float, ...]  # of the values in each bin, each above 0

    @classmethod
    def of(cls, values: Doubles) -> Reference:
        """Make bins of about a tenth of the values each; fewer where values repeat."""
        edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
        edges = edges[edges > values.min()]
        # Where values repeat, an edge between two of them may have no value above it.
        edges = edges[_count(edges, values)[1:] > 0]
        shares = _count(edges, values) / len(values)
        return cls(
            float(values.mean()), float(values.std()), tuple(edges.tolist()), tuple(shares.tolist())
        )


def _count(edges: npt.ArrayLike, values: Doubles, weights: npt.ArrayLike | None = None) -> Doubles:
    """Return the number of values (N,), or their weights, by bin: (E + 1,)."""
    bins = np.searchsorted(edges, values, side="right")
    return np.bincount(bins, weights, minlength=np.size(edges) + 1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class DriftReference:
    """What readings are compared with; part of an artifact's provenance, as ``drift_reference``."""

    n: int  # pictures that it was made of
    statistics: Mapping[str, Reference]  # one for each of STATISTICS

    @classmethod
    def from_inks_and_confidences(cls, inks: Ink, confidences: npt.ArrayLike) -> DriftReference:
        """Make the reference of some readings; fewer than 100 with ink raise a DataError.

        The inks (N, 28, 28) are of real pictures that the model was not fitted to, for on the
        others it is more confident: the calibration split, unaugmented. Blank ones are left out, as
        they are in service. The confidences (N,) are calibrated.
        """
        has_ink = inks.any(axis=(1, 2))
        inks, shares = inks[has_ink], np.asarray(confidences, dtype=np.float64)[has_ink]
        if len(inks) < _LEAST_PICTURES:
            raise DataError(
                f"a reference for drift needs {_LEAST_PICTURES} pictures with ink, not {len(inks)}"
            )
        found = statistics(inks, shares)
        return cls(len(inks), {name: Reference.of(values) for name, values in found.items()})

    def to_dict(self) -> Json:
        """Return it as a JSON object, for ``from_dict``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DriftReference:
        """Read back what ``to_dict`` made; a DataError says what is missing or invalid."""
        try:
            reference = msgspec.convert(content, cls)
            found = {name: reference.statistics[name] for name in STATISTICS}
        except (KeyError, msgspec.ValidationError) as error:
            raise DataError(f"the reference for drift is invalid: {error!r}") from error
        for name, one in found.items():
            is_whole = len(one.shares) == len(one.edges) + 1 and abs(sum(one.shares) - 1) < 1e-6
            if not is_whole or min(one.shares) <= 0 or list(one.edges) != sorted(set(one.edges)):
                raise DataError(f"the reference for the drift of {name} has invalid bins")
        return cls(reference.n, found)


class Window:
    """The pictures last read: counts in the reference's bins, each picture weighing less with age.

    A weight falls by the factor ``1 - 1/window`` with every later picture, so no picture needs to
    be kept. All weights together are at most ``window``, and as exact as twice as many pictures
    of equal weight.
    """

    def __init__(self, reference: DriftReference, window: int) -> None:
        self._reference = reference
        self._keep = 1 - 1 / window
        self.counts = {
            name: np.zeros(len(one.shares)) for name, one in reference.statistics.items()
        }
        self.sums = dict.fromkeys(reference.statistics, 0.0)

    def add(self, inks: Ink, confidences: npt.ArrayLike) -> None:
        """Add pictures in the order in which they were read; see ``statistics``."""
        weights = self._keep ** np.arange(len(inks) - 1, -1, -1)
        for name, values in statistics(inks, confidences).items():
            added = _count(self._reference.statistics[name].edges, values, weights)
            self.counts[name] = self.counts[name] * self._keep ** len(inks) + added
            self.sums[name] = self.sums[name] * self._keep ** len(inks) + float(weights @ values)
