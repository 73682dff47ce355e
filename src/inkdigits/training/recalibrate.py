"""An artifact and labelled pictures of one's own → the same network with another calibration.

Works without PyTorch and onnx. The temperature, the out-of-distribution threshold and the accept
thresholds are fitted to the readings of the pictures, in float32. What too few pictures cannot
tell stays as it was, and is said.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.intervals import LEVEL
from inkdigits.calibration.temperature import fit_temperature, probabilities
from inkdigits.data.labelled import LabelledInks
from inkdigits.decision.drift import PROVENANCE, DriftReference
from inkdigits.decision.policy import (
    DecisionPolicy,
    decided_confidence,
    energy,
    reject_threshold,
)
from inkdigits.decision.risk import (
    RISK,
    RISKS,
    AcceptThreshold,
    accept_choices,
    accepted_needed,
    supported_risk,
)
from inkdigits.errors import NoThresholdError
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import ArtifactMetadata, with_metadata
from inkdigits.model.backends import OnnxBackend
from inkdigits.reader import DigitReader
from inkdigits.types import NO_DIGIT, Doubles, Floats, Json, Labels, Mask, Report

LEAST_MISREAD: Final = 10
"""Misread pictures below which a temperature is not fitted: they alone say how often one errs."""
_LEAST_FOR_DRIFT: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What was fitted to some readings."""

    temperature: float
    policy: DecisionPolicy
    confidence: Doubles  # (N,), calibrated
    chosen: AcceptThreshold  # at the stated risk


def recalibrate(
    artifact: bytes,
    pictures: LabelledInks,
    *,
    risk: float = RISK,
    report: Report = lambda _: None,
) -> tuple[bytes, ArtifactMetadata]:
    """Return the artifact with temperature and thresholds of one's own pictures, and its metadata.

    Its provenance keeps how it was trained and its test figures, and says what it was calibrated
    on. ``report`` is told what was found, in lines.

    Raises:
        NoThresholdError: the pictures cannot support the risk; says which they support.
        ConfigError: a risk outside (0, 1).

    >>> from inkdigits.model.artifact import read_artifact
    >>> one = LabelledInks(np.ones((1, 28, 28), np.uint8), np.array([7]), [], [], np.array([True]))
    >>> recalibrate(read_artifact(), one)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.NoThresholdError: the 1 labelled pictures support no risk; 0.1 %...
    """
    backend = OnnxBackend(artifact, threads=1, int8=False)
    known = backend.metadata
    reader = DigitReader(backend, known, backend.segmenter, backend.line_reader)
    logits = reader.logits(standardise(pictures.inks))
    writers = pictures.writers
    if writers is not None:
        report(f"the bound over {len(np.unique(writers)):,} writers must also meet the risk")
    fitted = fit_readings(
        logits,
        pictures.labels,
        known,
        certain=pictures.certain,
        writers=writers,
        risk=risk,
        report=report,
    )
    provenance = _provenance(known, pictures, fitted, risk)
    metadata = replace(
        known, temperature=fitted.temperature, policy=fitted.policy, provenance=provenance
    )
    made = with_metadata(artifact, metadata, renew=True)
    return made, OnnxBackend(made, threads=1, int8=False).metadata


def fit_readings(
    logits: Floats,
    labels: Labels,
    known: ArtifactMetadata,
    *,
    certain: Mask | None = None,
    writers: npt.ArrayLike | None = None,
    risk: float = RISK,
    report: Report = lambda _: None,
) -> Fitted:
    """Fit temperature and thresholds to logits (N, 10) whose labels (N,) are known.

    What is labelled as no digit counts as wrong where it is accepted. What is not ``certain`` (N,)
    is not accepted, as by a reader; None is certain of all. Temperature and
    out-of-distribution threshold stay those of ``known`` where the pictures are too few. Where
    ``writers`` (N,) are known the risk must hold over them too, as in training's calibration. All
    is fitted to the same readings: a temperature is one number, and by simulation the risk is kept
    as often as stated (tests/training/test_recalibrate.py). Errors are those of ``recalibrate``.

    >>> from inkdigits.model.artifact import read_artifact, read_metadata
    >>> sure = 40 * np.eye(10, dtype=np.float32)[[7] * 3000]
    >>> fit_readings(sure, np.full(3000, 7), read_metadata(read_artifact())).chosen.n_wrong
    0
    """
    with_digit = labels != NO_DIGIT
    right = with_digit & (logits.argmax(axis=1) == labels)
    temperature = _temperature(logits[with_digit], labels[with_digit], known.temperature, report)
    scores = energy(logits)
    limit = reject_threshold(scores[with_digit]) if with_digit.any() else None
    if limit is None:
        limit = known.policy.novelty_threshold
        report(
            "the out-of-distribution threshold does not change, because "
            f"{int(with_digit.sum()):,} digits are too few"
        )
    confidence = probabilities(logits, temperature).max(axis=1)
    certain = np.ones(len(labels), bool) if certain is None else certain
    passing = decided_confidence(confidence, scores, limit, certain)
    supported = supported_risk(passing, right, writers=writers)
    choices = accept_choices(passing, right, writers=writers, risks=(*RISKS, risk))
    (chosen,) = (choice for choice in choices if choice.risk == risk)
    if chosen.threshold is None:
        raise NoThresholdError(_too_few(len(labels), risk, supported))
    report(
        f"a confidence of {chosen.threshold:g} accepts {100 * chosen.coverage:.2f} % of "
        f"{chosen.n:,} pictures, of which {chosen.n_wrong} of {chosen.n_accepted:,} are wrong"
    )
    if supported is not None:
        report(support(supported, risk))
    policy = replace(
        known.policy,
        accept_threshold=chosen.threshold,
        risk=risk,
        level=LEVEL,
        choices=choices,
        novelty_threshold=limit,
    )
    return Fitted(temperature, policy, confidence, chosen)


def support(supported: AcceptThreshold, risk: float) -> str:
    """Return the risk that so many readings support, and how many the stated one needs.

    >>> support(AcceptThreshold(0.5, 0.0025, 0.95, 1.0, 1200, 1200, 0), 0.001)
    '0 of 1,200 accepted are wrong, which supports a risk of 0.25 %; 0.1 % needs 2,995'
    """
    needed = accepted_needed(supported.n_wrong, risk)
    more = "" if supported.risk <= risk else f"; {100 * risk:g} % needs {needed:,}"
    return (
        f"{supported.n_wrong} of {supported.n_accepted:,} accepted are wrong, which supports a "
        f"risk of {100 * supported.risk:g} %{more}"
    )


def _too_few(n: int, risk: float, supported: AcceptThreshold | None) -> str:
    if supported is None:
        return (
            f"the {n:,} labelled pictures support no risk; {100 * risk:g} % needs "
            f"{accepted_needed(0, risk):,} correct accepted readings. Label more pictures."
        )
    return (
        f"the pictures do not support a risk of {100 * risk:g} %: {support(supported, risk)}. "
        f"State --risk {supported.risk:g}, or label more pictures."
    )


def _temperature(logits: Floats, labels: Labels, known: float, report: Report) -> float:
    misread = int((logits.argmax(axis=1) != labels).sum())
    if misread < LEAST_MISREAD:
        report(
            f"the temperature stays {known:.4f}, because {misread} misread digits of "
            f"{len(labels):,} are too few to fit it"
        )
        return known
    temperature = fit_temperature(logits, labels)
    report(f"temperature {known:.4f} → {temperature:.4f} ({misread} of {len(labels):,} misread)")
    return temperature


def _provenance(
    known: ArtifactMetadata, pictures: LabelledInks, fitted: Fitted, risk: float
) -> Json:
    """Return how the artifact was made: as before, and what it was calibrated on."""
    provenance = dict(known.provenance)
    if "test" in provenance and not math.isclose(known.temperature, fitted.temperature):
        # Accuracy is the same at every temperature, and the other figures are of the former one.
        provenance["test"] = {"temperature": known.temperature, **provenance["test"]}
    if "config" in provenance:
        provenance["config"] = {**provenance["config"], "risk": risk}
    provenance["calibrated_on"] = {"hardware": hardware(), "versions": versions()}
    provenance["calibration_data"] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_version": known.model_version,
        "sources": sorted({example.source for example in pictures.examples}),
        "n": len(pictures.labels),
        "writers": None if pictures.writers is None else len(np.unique(pictures.writers)),
        "sha256": pictures.digest(),
        "chosen": asdict(fitted.chosen),
    }
    if len(pictures.inks) >= _LEAST_FOR_DRIFT:
        reference = DriftReference.from_inks_and_confidences(pictures.inks, fitted.confidence)
        provenance[PROVENANCE] = reference.to_dict()
    return provenance


def described(metadata: ArtifactMetadata) -> Json:
    """Return what run.json holds of a recalibrated artifact.

    >>> from inkdigits.model.artifact import read_artifact, read_metadata
    >>> described(read_metadata(read_artifact()))["policy"]["risk"]
    0.001
    """
    return {
        "model_version": metadata.model_version,
        **metadata.provenance,
        "temperature": metadata.temperature,
        "policy": asdict(metadata.policy),
    }
