"""DigitReader: pictures in, calibrated predictions out. It knows neither HTTP nor a database."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Literal, Protocol, overload

import numpy as np
import numpy.typing as npt

from inkdigits.calibration.temperature import probabilities
from inkdigits.decision.ood import energy
from inkdigits.decision.policy import Decision, Reason
from inkdigits.decision.prediction import Prediction
from inkdigits.decision.several_digits import halves
from inkdigits.errors import ArtifactCorruptError, ImageError
from inkdigits.explain import Explanation, explain
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits
from inkdigits.ink.normalize import INK_SIZE, preprocess, standardise
from inkdigits.model.artifact import ArtifactMetadata, read_artifact
from inkdigits.model.backends import Backend, OnnxBackend, TorchBackend
from inkdigits.model.tta import BATCH_SIZE, forward_with_tta
from inkdigits.types import Device, Floats, Picture

__all__ = ["Device", "DigitReader", "Picture", "Prediction", "Reader", "load"]

UNIFORM = (0.1,) * 10


class Reader(Protocol):
    """What the API and the command line need of whatever reads digits."""

    @property
    def model_version(self) -> str:
        """Names the artifact that answers."""

    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        """Read one picture; raises an ImageError if it can't be decoded."""

    def explain(self, picture: Picture, *, risk: float | None = None) -> Explanation:
        """Read one picture and show what the reading rests on."""

    @overload
    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["raise"] = "raise",
        risk: float | None = None,
    ) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["return"],
        risk: float | None = None,
    ) -> list[Prediction | ImageError]: ...


class DigitReader:
    """Reads digits with one artifact. Safe to call from several threads.

    Made by ``load``; satisfies ``Reader``.
    """

    def __init__(
        self,
        backend: Backend,
        metadata: ArtifactMetadata,
        limits: Limits = DEFAULT_LIMITS,
        risk: float | None = None,
    ) -> None:
        self._backend = backend
        self._limits = limits
        self._risk = risk
        self.metadata = metadata
        if risk is not None:
            metadata.policy.choice(risk)
        self._warm_up()

    @property
    def model_version(self) -> str:
        """Names the artifact that answers."""
        return self.metadata.model_version

    def _warm_up(self) -> None:
        """Answer once, so that a model which can't is found at start and not by a user."""
        logits = self.logits_and_features(np.zeros((2, INK_SIZE, INK_SIZE), dtype=np.uint8))[0]
        if logits.shape != (2, 10) or not np.isfinite(logits).all():
            raise ArtifactCorruptError(
                f"the model answers a blank batch with shape {logits.shape} instead of (2, 10), "
                "or with values that are not finite"
            )

    def logits_and_features(self, inks: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Return the network's outputs for ink, test-time augmentation included.

        Args:
            inks: (N, 28, 28) uint8, N at least 1, as ``preprocessing.preprocess`` makes it.

        Returns:
            Logits (N, 10) and features (N, 128), float32.
        """
        return self._forward(standardise(inks))

    def logits(self, batch: Floats) -> Floats:
        """Logits (N, 10) float32 for standardised ink (N, 1, 28, 28) float32, N at least 1."""
        return self._forward(batch)[0]

    def _forward(self, batch: Floats) -> tuple[Floats, Floats]:
        margin = self.metadata.second_look_margin
        return forward_with_tta(self._backend.forward, batch, margin)

    def probabilities(self, inks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Calibrated probabilities (N, 10) for ink (N, 28, 28) that is prepared already."""
        return probabilities(self.logits_and_features(inks)[0], self.metadata.temperature)

    def predict(self, picture: Picture, *, risk: float | None = None) -> Prediction:
        """Read one picture.

        Args:
            picture: see ``preprocessing.preprocess``.
            risk: tolerated share of wrong readings among the accepted, between 0 and 1; None is
                what ``load`` was given, or else the artifact's own. Of the risks in the
                artifact's policy the loosest that is no looser applies; if even the strictest is
                looser, or can't be kept, nothing is accepted.

        Raises:
            ImageError: the picture can't be read or is over a limit.
            ConfigError: a risk outside (0, 1).
        """
        return self.predict_batch([picture], risk=risk)[0]

    def explain(self, picture: Picture, *, risk: float | None = None) -> Explanation:
        """Read one picture and show what the reading rests on; see ``explain.explain``.

        Args:
            picture: see ``preprocessing.preprocess``.
            risk: as for ``predict``.

        Raises:
            ImageError: the picture can't be read or is over a limit.
            ConfigError: a risk outside (0, 1).
        """
        return explain(self, picture, risk=risk)

    @overload
    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["raise"] = "raise",
        risk: float | None = None,
    ) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["return"],
        risk: float | None = None,
    ) -> list[Prediction | ImageError]: ...

    def predict_batch(
        self,
        pictures: Sequence[Picture],
        *,
        on_error: Literal["raise", "return"] = "raise",
        risk: float | None = None,
    ) -> list[Prediction] | list[Prediction | ImageError]:
        """Read many pictures; answers are in the same order.

        Args:
            pictures: see ``preprocessing.preprocess``.
            on_error: "raise" stops at the first picture that can't be read; "return" puts its
                error in its place and goes on.
            risk: as for ``predict``.

        Raises:
            ImageError: with "raise", of the first picture that can't be read.
            ConfigError: a risk outside (0, 1).
        """
        terms = self._terms(self._risk if risk is None else risk)
        answers: list[Prediction | ImageError] = []
        for start in range(0, len(pictures), BATCH_SIZE):
            answers += self._read(pictures[start : start + BATCH_SIZE], on_error, terms)
        return answers

    def _terms(self, risk: float | None) -> tuple[float | None, float | None]:
        """The stated risk and the coverage that it leaves."""
        if risk is None:
            return None, None
        choice = self.metadata.policy.choice(risk)
        return risk, 0.0 if choice is None else choice.coverage

    def _read(
        self,
        pictures: Sequence[Picture],
        on_error: Literal["raise", "return"],
        terms: tuple[float | None, float | None],
    ) -> list[Prediction | ImageError]:
        inks: list[npt.NDArray[np.uint8] | ImageError] = []
        milliseconds: list[float] = []
        for picture in pictures:
            started = time.perf_counter()
            try:
                inks.append(preprocess(picture, self._limits))
            except ImageError as error:
                if on_error == "raise":
                    raise
                inks.append(error)
            milliseconds.append((time.perf_counter() - started) * 1000)
        with_ink = {
            i: ink for i, ink in enumerate(inks) if isinstance(ink, np.ndarray) and ink.any()
        }
        started = time.perf_counter()
        rows: dict[int, tuple[list[float], float]] = {}
        if with_ink:
            logits = self.logits_and_features(np.stack(list(with_ink.values())))[0]
            shares = probabilities(logits, self.metadata.temperature)
            novelty = energy(logits).tolist()
            rows = dict(zip(with_ink, zip(shares.tolist(), novelty, strict=True), strict=True))
        inference_ms = (time.perf_counter() - started) * 1000 / max(1, len(with_ink))
        return [
            ink
            if isinstance(ink, ImageError)
            else self._prediction(ink, rows.get(i), milliseconds[i], inference_ms, terms)
            for i, ink in enumerate(inks)
        ]

    def _holds_two(self, ink: npt.NDArray[np.uint8]) -> bool:
        """Whether both halves of ink that isn't a digit are digits, by the same threshold."""
        limit = self.metadata.policy.novelty_threshold
        parts = halves(ink)
        if parts is None or limit is None:
            return False
        novelty = energy(self.logits_and_features(parts)[0])
        return bool((novelty <= limit).all())

    def _prediction(
        self,
        ink: npt.NDArray[np.uint8],
        row: tuple[list[float], float] | None,
        preprocessing_ms: float,
        inference_ms: float,
        terms: tuple[float | None, float | None],
    ) -> Prediction:
        decision: Decision
        reason: Reason | None
        digit: int | None
        novelty: float | None
        shares: tuple[float, ...]
        # What the picture alone shows comes first, then what the network finds in it.
        if row is None:
            digit, confidence, shares, novelty = None, 0.0, UNIFORM, None
            decision, reason, inference_ms = "reject", "blank", 0.0
        else:
            shares, novelty = tuple(row[0]), row[1]
            confidence = max(shares)
            digit = shares.index(confidence)
            decision, reason = self.metadata.policy.decide(
                confidence, novelty=novelty, risk=terms[0]
            )
            if reason == "not_a_digit" and self._holds_two(ink):
                reason = "several_digits"
        return Prediction(
            digit=digit,
            confidence=confidence,
            probabilities=shares,
            decision=decision,
            reason=reason,
            novelty=novelty,
            ink=ink,
            model_version=self.model_version,
            preprocessing_ms=preprocessing_ms,
            inference_ms=inference_ms,
            risk=terms[0],
            coverage=terms[1],
        )


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    device: Device | None = None,
    threads: int = 1,
    limits: Limits = DEFAULT_LIMITS,
    risk: float | None = None,
) -> DigitReader:
    """A reader with the artifact at ``path``, verified and warmed up.

    Args:
        path: an artifact as ``inkdigits train`` or ``inkdigits export`` writes it; None is the
            one that comes with the package.
        device: None runs on ONNX Runtime on the CPU; "cpu", "cuda", "mps" or "auto" on PyTorch,
            which the ``train`` extra installs.
        threads: ONNX Runtime's, for one batch.
        limits: sizes of pictures that are refused.
        risk: what ``predict`` goes by where it isn't given one; None is the artifact's own.

    Raises:
        ArtifactError: the artifact is missing, truncated, altered or of another version.
        ConfigError: a risk outside (0, 1).
        BackendUnavailableError: the device or its library isn't here.
    """
    artifact = read_artifact(path)
    onnx_backend = OnnxBackend(artifact, threads)
    metadata = onnx_backend.metadata
    backend: Backend = onnx_backend if device is None else TorchBackend(artifact, device)
    return DigitReader(backend, metadata, limits, risk)
