"""How unlike any digit a picture is: four scores from the network's answers, higher is stranger.

All four need the logits and the features (what ``fc1`` gives after ReLU) of one ordinary pass
through the network, and no pictures that aren't digits: they are fitted on training digits alone.
``compare`` measures which of them tells digits from the rest, and docs/experiments/ keeps what
it found. NumPy only; the scorer travels in the artifact, so that every backend scores alike.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from inkdigits.errors import ArtifactCorruptError, ConfigError, DataError
from inkdigits.types import Floats

Method: TypeAlias = Literal["max_logit", "energy", "mahalanobis", "nearest"]

METHOD: Method = "energy"
"""What a run keeps, by the comparison in docs/experiments/."""

REFERENCES = 2000
"""Training digits that ``nearest`` looks among: half as many lost 0.002 AUROC."""

REJECTED_SHARE = 0.003
"""Tolerated share of digits that are rejected as no digits."""

# Ridge on the covariance, as a share of its mean variance: features that are hardly ever above 0
# would otherwise count without bounds. From 0.001 to 0.1 the AUROC changed by less than 0.01.
_RIDGE = 1e-2
_NAMES: Mapping[Method, frozenset[str]] = {
    "max_logit": frozenset(),
    "energy": frozenset(),
    "mahalanobis": frozenset({"whitening", "centres"}),
    "nearest": frozenset({"references"}),
}


@dataclass(frozen=True, slots=True, eq=False)
class NoveltyScorer:
    """One way of scoring, with what it was fitted to.

    Attributes:
        method: see ``score``.
        parameters: float32 arrays by name: none for "max_logit" and "energy"; "whitening" (D, R)
            and "centres" (10, R) for "mahalanobis"; "references" (M, D), rows of length 1 as
            half precision has it, for "nearest".

    Raises:
        ConfigError: an unknown method, or parameters that aren't its own.
    """

    method: Method = "energy"
    parameters: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ConfigError(
                f"the novelty's method is {self.method!r}; it is one of {get_args(Method)}"
            )
        if self.parameters.keys() != _NAMES[self.method]:
            raise ConfigError(
                f"{self.method} has the parameters {sorted(self.parameters)} instead of "
                f"{sorted(_NAMES[self.method])}"
            )
        for name, value in self.parameters.items():
            if value.ndim != 2 or not value.size or not np.isfinite(value).all():
                raise ConfigError(
                    f"the novelty's {name} is {value.shape}; two dimensions of finite numbers "
                    "are needed"
                )

    def score(self, logits: npt.ArrayLike, features: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The novelty of a batch.

        - "max_logit": minus the largest logit (Hendrycks et al., "Scaling Out-of-Distribution
          Detection for Real-World Settings", ICML 2022).
        - "energy": minus the log of the summed exponentials of the logits (Liu, Wang, Owens and
          Li, "Energy-based Out-of-distribution Detection", NeurIPS 2020, at temperature 1).
        - "mahalanobis": distance to the nearest digit's mean in the features, by the covariance
          that the digits share (Lee, Lee, Lee and Shin, "A Simple Unified Framework for
          Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, without
          its perturbation of the input). In standard deviations.
        - "nearest": 1 minus the cosine to the nearest reference (Sun, Ming, Zhu and Li,
          "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, with k = 1). 0
          to 1, for features aren't negative.

        Args:
            logits: (N, 10), finite.
            features: (N, D), finite.

        Returns:
            (N,), finite; higher is less like any digit.

        Raises:
            DataError: shapes that don't belong together.
        """
        z = np.asarray(logits, dtype=np.float64)
        f = np.asarray(features, dtype=np.float32)
        if z.ndim != 2 or f.ndim != 2 or len(z) != len(f):
            raise DataError(
                f"logits and features must be (N, 10) and (N, D); they are {z.shape} and {f.shape}"
            )
        if self.method == "max_logit":
            highest: npt.NDArray[np.float64] = z.max(axis=1)
            return -highest
        if self.method == "energy":
            largest = z.max(axis=1)
            energy: npt.NDArray[np.float64] = -largest - np.log(
                np.exp(z - largest[:, None]).sum(axis=1)
            )
            return energy
        width = self.parameters["whitening" if self.method == "mahalanobis" else "references"]
        expected = width.shape[0] if self.method == "mahalanobis" else width.shape[1]
        if f.shape[1] != expected:
            raise DataError(f"the features are {f.shape}; the scorer was fitted to (N, {expected})")
        if self.method == "mahalanobis":
            offsets = (f @ width)[:, None] - self.parameters["centres"]
            distances: npt.NDArray[np.float64] = np.sqrt(
                np.square(offsets, dtype=np.float64).sum(axis=2).min(axis=1)
            )
            return distances
        cosines = _unit(f) @ width.T
        nearest: npt.NDArray[np.float64] = cosines.max(axis=1).astype(np.float64)
        return 1.0 - np.minimum(nearest, 1.0)

    def to_text(self) -> str:
        """The parameters as base64 of a NumPy archive: what an artifact's metadata can hold."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, value in sorted(self.parameters.items()):
                short = value.astype(np.float16)
                # np.savez would put the time of writing in; equal scorers make equal texts.
                entry = zipfile.ZipInfo(f"{name}.npy")
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w") as file:
                    np.lib.format.write_array(file, short if (short == value).all() else value)
        return base64.b64encode(buffer.getvalue()).decode("ascii")

    @classmethod
    def from_text(cls, method: str, text: str) -> NoveltyScorer:
        """Read back what ``to_text`` made.

        Raises:
            ArtifactCorruptError: it is something else, or belongs to another method.
        """
        try:
            content = io.BytesIO(base64.b64decode(text, validate=True))
            with np.load(content, allow_pickle=False) as archive:
                parameters = {name: archive[name].astype(np.float32) for name in archive.files}
            return cls(method, parameters)  # type: ignore[arg-type]  # checked when made
        except (ValueError, binascii.Error, zipfile.BadZipFile, OSError, EOFError) as error:
            raise ArtifactCorruptError(
                f"the artifact's novelty parameters can't be used: {error}"
            ) from error


def fit(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    method: Method = METHOD,
    *,
    references: int = REFERENCES,
    seed: int = 0,
) -> NoveltyScorer:
    """Fit a scorer to digits that trained the network.

    Args:
        features: (N, D), finite, of digits.
        labels: (N,) integers from 0 to 9.
        method: see ``NoveltyScorer.score``.
        references: digits that "nearest" keeps, a tenth of them of each digit where there are as
            many; drawn by ``seed``.
        seed: of the draw.

    Raises:
        DataError: nothing to fit to, or shapes that don't belong together.
    """
    f = np.asarray(features, dtype=np.float64)
    y = np.asarray(labels)
    if f.ndim != 2 or not f.size or y.shape != f.shape[:1]:
        raise DataError(
            f"features and labels must be (N, D) and (N,); they are {f.shape} and {y.shape}"
        )
    if method == "mahalanobis":
        digits = np.unique(y)
        centres = np.stack([f[y == digit].mean(axis=0) for digit in digits])
        residuals = f - centres[np.searchsorted(digits, y)]
        variances, directions = np.linalg.eigh(residuals.T @ residuals / len(f))
        variances = np.maximum(variances, 0) + _RIDGE * variances.mean()
        whitening = (directions / np.sqrt(variances)).astype(np.float32)
        whitened = (centres @ whitening).astype(np.float32)
        return NoveltyScorer(method, {"whitening": whitening, "centres": whitened})
    if method == "nearest":
        chosen = stratified_sample(y, references, seed)
        # Rounded to half precision, which takes half the space in the artifact.
        kept = _unit(f[chosen].astype(np.float32)).astype(np.float16)
        return NoveltyScorer(method, {"references": kept.astype(np.float32)})
    return NoveltyScorer(method)


def stratified_sample(labels: npt.ArrayLike, size: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Sorted indices of about ``size`` of the labels, as many of each digit where there are.

    Raises:
        ConfigError: a size below 10.
    """
    if size < 10:
        raise ConfigError(f"a sample of {size} can't hold every digit; 10 is the least")
    y = np.asarray(labels)
    random = np.random.default_rng(seed)
    parts = [random.permutation(np.flatnonzero(y == digit))[: size // 10] for digit in np.unique(y)]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def reject_threshold(novelty: npt.ArrayLike, share: float = REJECTED_SHARE) -> float | None:
    """The novelty above which at most ``share`` of digits lie.

    Split conformal prediction: of n calibration scores the ceil((1 - share)(n + 1))-th smallest,
    which one more score of the same kind exceeds with a chance of at most ``share``, whatever
    their distribution (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World",
    2005; for outliers Bates, Candes, Lei, Romano and Sesia, Annals of Statistics 51, 2023).

    Args:
        novelty: (N,), of digits that trained nothing.
        share: between 0 and 1.

    Returns:
        Reject above it; None where so few digits can't tell, and nothing may be rejected.

    Raises:
        ConfigError: a share outside (0, 1).
        DataError: no scores, or scores that aren't finite.
    """
    if not 0 < share < 1:
        raise ConfigError(f"the rejected share is {share}; it must lie strictly between 0 and 1")
    scores = np.sort(np.asarray(novelty, dtype=np.float64))
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise DataError(f"the novelty must be (N,) finite numbers; it is of shape {scores.shape}")
    rank = math.ceil((1 - share) * (len(scores) + 1))
    return None if rank > len(scores) else float(scores[rank - 1])


def auroc(digits: npt.ArrayLike, others: npt.ArrayLike) -> float:
    """The chance that one of the others is stranger than a digit; ties count half.

    From the ranks, as Mann and Whitney's U (Hanley and McNeil, Radiology 143, 1982).

    Args:
        digits: (N,) novelty of digits.
        others: (M,) novelty of what isn't one.

    Raises:
        DataError: one of them is empty.
    """
    low, high = np.sort(np.asarray(digits, float)), np.asarray(others, float)
    if not low.size or not high.size:
        raise DataError("AUROC needs scores of digits and of others")
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / (2 * low.size))


def _unit(rows: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays one, and is like nothing."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: Floats = rows / np.maximum(lengths, np.float32(1e-12))
    return result
