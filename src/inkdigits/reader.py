"""DigitReader: pictures in, calibrated predictions out. It knows neither HTTP nor a database.

A picture passes the rooms in this order: ink (decode, find the ink, normalise), model (logits),
calibration (probabilities), decision (accept, review or reject).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from inkdigits.calibration.temperature import probabilities
from inkdigits.decision.hints import NO_HINTS, Hints
from inkdigits.decision.numbers import (
    LEAST_HEIGHT,
    LEAST_SHARE,
    NUMBER_POLICY,
    ReadStrip,
    read_number,
)
from inkdigits.decision.policy import ACCEPT_NOVELTY, Decision, Reason, energy
from inkdigits.decision.prediction import (
    Box,
    Explanation,
    NumberReading,
    Prediction,
    Reader,
)
from inkdigits.errors import ArtifactCorruptError, HintError, ImageError
from inkdigits.explain import explain
from inkdigits.ink import normalize
from inkdigits.ink.components import connected_components
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits, Luminance, read_luminance
from inkdigits.ink.normalize import (
    INK_SIZE,
    Field,
    field_of,
    has_several,
    is_certain,
    is_cut_off,
    normalise,
    standardise,
)
from inkdigits.ink.plain import SMALL_PICTURE, Foreground, find_foreground
from inkdigits.ink.segment import Segmenter
from inkdigits.model.artifact import ArtifactMetadata, read_artifact
from inkdigits.model.backends import BATCH_SIZE, Backend, OnnxBackend, TorchBackend
from inkdigits.types import Device, Floats, Ink, Picture, Probabilities

LARGEST_FIELD = 1600
"""Fields are averaged down to this many pixels a side before a number is read."""
LEAST_SEVERAL, LEAST_IF_REJECTED = 0.7, 0.5
"""The least probability of several digits with which a picture is rejected for having them, and of
one that is rejected anyway. Of ink in one piece each digit has to be as likely: the bows of a "B"
are no 1 and 3. Of 900 pictures of 2 to 10 digits 99 % are rejected for having several, of 600 pairs
and triples that touch 96 %, and of 2,400 letters, signs and scribbles 2 %."""
SEVERAL_RISK = 0.05
"""Accepted as one digit is only what reads as a number too, at this risk."""
_UNIFORM = (0.1,) * 10


class DigitReader(Reader):
    """Reads digits with one artifact. Safe to call from several threads. Made by ``load``."""

    def __init__(
        self,
        backend: Backend,
        metadata: ArtifactMetadata,
        segmenter: Segmenter,
        line_reader: ReadStrip,
        limits: Limits = DEFAULT_LIMITS,
        risk: float | None = None,
    ) -> None:
        self._backend = backend
        self._segmenter = segmenter
        self._line_reader = line_reader
        self._limits = limits
        self._risk = risk
        self.metadata = metadata
        if risk is not None:
            metadata.policy.choice(risk)
        self._warm_up()

    @property
    def model_version(self) -> str:
        """The version of the artifact that reads."""
        return self.metadata.model_version

    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        """Read one picture.

        Args:
            picture: see ``ink.normalize.preprocess``.
            risk: tolerated share of wrong readings among the accepted, between 0 and 1; None is
                what ``load`` was given, or else the artifact's own; see ``DecisionPolicy.choice``.

        Raises:
            ImageError: the picture cannot be read or is over a limit.
            ConfigError: a risk outside (0, 1).
        """
        reading = next(self._read_each([picture], risk))
        if isinstance(reading, ImageError):
            raise reading
        return reading

    def preprocess(self, picture: Picture) -> Ink:
        """Return the ink (28, 28) that it reads; see ``ink.normalize.preprocess``."""
        return normalize.preprocess(picture, self._segmenter, self._limits)

    def explain(self, picture: Picture, *, risk: float | None = None) -> Explanation:
        """Read one picture and show what the reading rests on; see ``inkdigits.explain``.

        Arguments and errors are those of ``predict``.
        """
        return explain(self.predict(picture, risk=risk), self.probabilities)

    def _read_fields(
        self, picture: Picture, regions: Sequence[Box] | None, hints: Hints, risk: float | None
    ) -> list[NumberReading]:
        started = time.perf_counter()
        grey = read_luminance(picture, self._limits).grey
        height, width = grey.shape
        readings = []
        for left, top, wide, high in [(0, 0, width, height)] if regions is None else regions:
            right, bottom = left + wide, top + high
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                raise HintError(
                    f"region [{left}, {top}, {wide}, {high}] is not inside the picture, which is "
                    f"{width} x {height} pixels"
                )
            part = grey[top:bottom, left:right]
            # The lines of a cell are told from its digit in a picture that is not small.
            enlarged = 1 if regions is None or max(part.shape) > SMALL_PICTURE else 2
            part = part.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
            found = find_foreground(Luminance.of(part), self._segmenter, LARGEST_FIELD)
            field = field_of(replace(found, scale=found.scale / enlarged))
            least_height = LEAST_HEIGHT if regions is None else LEAST_SHARE * high
            risk = self._risk if risk is None else risk
            reading = self._read_field(field, hints, risk, least_height)
            moved = tuple(
                replace(one, box=(left + one.box[0], top + one.box[1], *one.box[2:]))
                for one in reading.digits
            )
            elapsed_ms = (time.perf_counter() - started) * 1000
            started = time.perf_counter()
            readings.append(replace(reading, digits=moved, total_ms=elapsed_ms))
        return readings

    def _read_field(
        self, field: Field, hints: Hints, risk: float | None, least_height: float
    ) -> NumberReading:
        reading = read_number(
            field.ink,
            self._line_reader,
            lambda inks: self._backend.logits(standardise(inks)),
            NUMBER_POLICY,
            hints=hints,
            risk=risk,
            least_height=least_height / field.scale,
        )
        digits = tuple(replace(one, box=_placed(one.box, field)) for one in reading.digits)
        return replace(reading, digits=digits, model_version=self.model_version)

    def logits_and_features(self, inks: Ink) -> tuple[Floats, Floats]:
        """Return logits (N, 10) and features (N, 128), float32, for ink (N, 28, 28), N >= 1."""
        return self._forward(standardise(inks))

    def logits(self, batch: Floats) -> Floats:
        """Return logits (N, 10) float32 for standardised ink (N, 1, 28, 28) float32, N >= 1."""
        return self._forward(batch)[0]

    def probabilities(self, inks: Ink) -> Probabilities:
        """Return calibrated probabilities (N, 10) for ink (N, 28, 28), N >= 1."""
        return probabilities(self.logits(standardise(inks)), self.metadata.temperature)

    def _forward(self, batch: Floats, *, at_any_risk: bool = True) -> tuple[Floats, Floats]:
        margin = self.metadata.second_look_margin
        return self._backend.read(batch, margin, at_any_risk=at_any_risk)

    def _warm_up(self) -> None:
        """Read once, so that a model that cannot is found at start and not by a user."""
        blank = np.zeros((2, INK_SIZE, INK_SIZE), dtype=np.uint8)
        logits = self._backend.logits(standardise(blank))
        if logits.shape != (2, 10) or not np.isfinite(logits).all():
            raise ArtifactCorruptError(
                f"the model answers a blank batch with shape {logits.shape} instead of (2, 10), "
                "or with values that are not finite"
            )

    def _read_each(
        self, pictures: Sequence[Picture], risk: float | None
    ) -> Iterator[Prediction | ImageError]:
        risk = self._risk if risk is None else risk
        choice = None if risk is None else self.metadata.policy.choice(risk)
        coverage = None if risk is None else 0.0 if choice is None else choice.coverage
        for start in range(0, len(pictures), BATCH_SIZE):
            yield from self._read_batch(pictures[start : start + BATCH_SIZE], risk, coverage)

    def _read_batch(
        self, pictures: Sequence[Picture], risk: float | None, coverage: float | None
    ) -> Iterator[Prediction | ImageError]:
        found = [self._find_ink(picture) for picture in pictures]
        inks = [one.ink for one in found if isinstance(one, _Found) and one.ink.any()]
        started = time.perf_counter()
        rows: Iterator[tuple[list[float], float]] = iter(())
        if inks:
            batch = standardise(np.array(inks))
            logits, _ = self._forward(batch, at_any_risk=risk is not None)
            shares = probabilities(logits, self.metadata.temperature)
            rows = zip(shares.tolist(), energy(logits).tolist(), strict=True)
        inference_ms = (time.perf_counter() - started) * 1000 / max(1, len(inks))
        for one in found:
            if isinstance(one, ImageError):
                yield one
                continue
            reading = partial(
                Prediction,
                ink=one.ink,
                model_version=self.model_version,
                preprocessing_ms=one.ms,
                risk=risk,
                coverage=coverage,
            )
            if not one.ink.any():
                yield reading(None, 0.0, _UNIFORM, "reject", "blank", None, inference_ms=0.0)
                continue
            row, novelty = next(rows)
            confidence = max(row)
            digit = row.index(confidence)
            decision, reason, number = self._decide(one, digit, confidence, novelty, risk)
            yield reading(
                digit,
                confidence,
                tuple(row),
                decision,
                reason,
                novelty,
                inference_ms=inference_ms,
                number=number,
            )

    def _find_ink(self, picture: Picture) -> _Found | ImageError:
        started = time.perf_counter()
        try:
            ink, foreground = normalize.find(picture, self._segmenter, self._limits)
        except ImageError as error:
            return error
        told = has_several(foreground), is_cut_off(foreground), is_certain(foreground)
        return _Found(ink, foreground, *told, (time.perf_counter() - started) * 1000)

    def _decide(
        self, found: _Found, digit: int, confidence: float, novelty: float, risk: float | None
    ) -> tuple[Decision, Reason | None, NumberReading | None]:
        decision, reason = self.metadata.policy.decide(confidence, novelty=novelty, risk=risk)
        if reason is not None or found.has_pieces:
            field = field_of(found.foreground)
            number = self._read_field(field, NO_HINTS, SEVERAL_RISK, LEAST_HEIGHT)
            least = LEAST_SEVERAL if reason is None else LEAST_IF_REJECTED
            is_readable = number.decision != "reject" and len(number.text) > 1
            is_likely = found.has_pieces or (is_readable and number.certainty >= least)
            if number.several >= least and is_likely:
                if number.decision == "accept":
                    # What is safe at this risk is so at a lower one, if it is certain enough.
                    strict, _ = NUMBER_POLICY.decide(number.certainty, risk=risk)
                    number = replace(number, decision=strict)
                return "reject", "several_digits", number if is_readable else None
            is_doubtful = reason == "not_a_digit" and found.has_pieces and number.text
            if is_doubtful and self._reads_apart(found.foreground):
                return "reject", "several_digits", None
            # What is accepted is the same digit with all that was found.
            is_same = number.decision == "accept" and number.text == str(digit)
            if decision == "accept" and not is_same:
                decision = "review"
        if found.is_cut:
            return "reject", "cut_off", None
        return "review" if decision == "accept" and not found.is_sure else decision, reason, None

    def _reads_apart(self, found: Foreground) -> bool:
        """Return whether each of the two largest pieces is a digit by itself."""
        pieces = connected_components(found.mask, found.values)
        alone = [pieces.number == i for i in np.argsort(-pieces.size)[:2]]
        patches = (np.where(one, found.values, np.float32(0)) for one in alone)
        inks = [normalise(Foreground.whole_picture(patch)) for patch in patches]
        scores = energy(self._backend.logits(standardise(np.stack(inks))))
        return len(inks) > 1 and bool((scores <= ACCEPT_NOVELTY).all())


class _Found(NamedTuple):
    """What was found in a picture."""

    ink: Ink
    foreground: Foreground
    has_pieces: bool  # more than one that could be a digit
    is_cut: bool  # a stroke runs into an edge of the picture
    is_sure: bool  # the ink is certain, and all of it was found
    ms: float  # that it took


def _placed(box: Box, field: Field) -> Box:
    """Return where a box of a field is in the picture."""
    left, top, width, height = box
    moved = (left + field.left, top + field.top, width, height)
    left, top, width, height = (round(field.scale * side) for side in moved)
    return left, top, width, height


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    device: Device | None = None,
    int8: bool = True,
    threads: int = 1,
    limits: Limits = DEFAULT_LIMITS,
    risk: float | None = None,
) -> DigitReader:
    """Return a reader with the artifact at ``path``, verified and warmed up.

    Args:
        path: an artifact as ``inkdigits train`` or ``inkdigits export`` writes it; None is the
            one that comes with the package, and "MNISTClassifier" the plain network beside it.
        device: None runs on ONNX Runtime on the CPU; "cpu", "cuda", "mps" or "auto" on PyTorch,
            which the ``train`` extra installs and which computes in float32.
        int8: of ONNX Runtime: whether to read in int8 if the artifact holds the network in int8.
        threads: ONNX Runtime's, for one batch.
        limits: sizes above which pictures are rejected.
        risk: what ``predict`` uses where it is given none; None is the artifact's own.

    Raises:
        ArtifactError: the artifact is missing, truncated, altered or of another version.
        ConfigError: a risk outside (0, 1).
        BackendUnavailableError: the device or its library is not on this machine.

    >>> reader = load()
    >>> reader.predict(np.zeros((28, 28), np.uint8)).reason
    'blank'
    """
    artifact = read_artifact(path)
    onnx_backend = OnnxBackend(artifact, threads, int8=int8 and device is None)
    backend: Backend = onnx_backend if device is None else TorchBackend(artifact, device)
    networks = onnx_backend.segmenter, onnx_backend.line_reader
    return DigitReader(backend, onnx_backend.metadata, *networks, limits, risk)


@cache
def _shipped_segmenter() -> Segmenter:
    return OnnxBackend(read_artifact(), 1, int8=False).segmenter


def preprocess(picture: Picture, limits: Limits = DEFAULT_LIMITS) -> Ink:
    """Return the ink of a picture, found with the shipped segmenter; see ``ink.normalize``.

    >>> preprocess(np.zeros((28, 28), np.uint8)).any()
    np.False_
    """
    return normalize.preprocess(picture, _shipped_segmenter(), limits)
