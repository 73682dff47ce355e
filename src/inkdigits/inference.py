"""DigitReader: pictures in, calibrated predictions out. It knows neither HTTP nor a database."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from inkdigits.artifact import ArtifactMetadata, read_artifact
from inkdigits.calibration import probabilities
from inkdigits.decision import Decision, Reason
from inkdigits.errors import ArtifactCorruptError, BackendUnavailableError, ImageError
from inkdigits.preprocessing import (
    DEFAULT_LIMITS,
    INK_SIZE,
    Limits,
    Picture,
    preprocess,
    standardise,
)

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Device", "DigitReader", "Picture", "Prediction", "Reader", "load"]

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
FloatArray: TypeAlias = npt.NDArray[np.float32]

# Pictures that go through the network together: more gains nothing on a CPU and takes memory
# (about 150 kB of activations a picture).
BATCH_SIZE = 128
UNIFORM = (0.1,) * 10


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was read in one picture.

    Attributes:
        digit: 0 to 9, or None when there is no ink to read.
        confidence: calibrated probability of ``digit``, 0 to 1; 0.0 when ``digit`` is None.
        probabilities: calibrated probabilities of the digits 0 to 9, summing to 1; uniform when
            ``digit`` is None.
        decision: what to do with it: accept it, let somebody review it, or reject it.
        reason: why it was rejected; None unless ``decision`` is "reject".
        novelty: how unlike any digit the ink is, higher is stranger; None where not computed.
        ink: (28, 28) uint8, what the model saw: 0 is paper, 255 is ink.
        model_version: which artifact answered.
        preprocessing_ms: milliseconds from the encoded picture to the ink.
        inference_ms: milliseconds from the ink to the probabilities (a batch's mean).
    """

    digit: int | None
    confidence: float
    probabilities: tuple[float, ...]
    decision: Decision
    reason: Reason | None
    novelty: float | None
    ink: npt.NDArray[np.uint8]
    model_version: str
    preprocessing_ms: float
    inference_ms: float


class Reader(Protocol):
    """What the API and the command line need of whatever reads digits."""

    @property
    def model_version(self) -> str:
        """Names the artifact that answers."""

    def predict(self, picture: Picture) -> Prediction:
        """Read one picture; raises an ImageError if it can't be decoded."""

    @overload
    def predict_batch(self, pictures: Sequence[Picture]) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self, pictures: Sequence[Picture], *, on_error: Literal["raise"]
    ) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self, pictures: Sequence[Picture], *, on_error: Literal["return"]
    ) -> list[Prediction | ImageError]: ...


class Backend(Protocol):
    """What computes logits: (N, 1, 28, 28) float32 standardised ink → (N, 10) float32."""

    def logits(self, batch: FloatArray) -> FloatArray:
        """Logits of a batch."""


class OnnxBackend:
    """ONNX Runtime on the CPU."""

    def __init__(self, artifact: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads would burn the cores that the other workers need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session: onnxruntime.InferenceSession = onnxruntime.InferenceSession(
                artifact, options, providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's own exceptions have RuntimeError and ValueError as bases, or none at all
        # but Exception in some releases; its public module of them is this one.
        except _onnxruntime_errors() as error:
            raise ArtifactCorruptError(f"ONNX Runtime can't load the artifact: {error}") from error
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    @property
    def metadata(self) -> ArtifactMetadata:
        """What the artifact says of itself."""
        return ArtifactMetadata.from_properties(self._session.get_modelmeta().custom_metadata_map)

    def logits(self, batch: FloatArray) -> FloatArray:
        """Logits of a batch."""
        result: FloatArray = self._session.run([self._output], {self._input: batch})[0]
        return result


def _onnxruntime_errors() -> tuple[type[BaseException], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
    )


class TorchBackend:
    """PyTorch on a CPU, an NVIDIA GPU (cuda) or an Apple GPU (mps); needs the ``train`` extra."""

    def __init__(self, artifact: bytes, device: Device) -> None:
        try:
            import torch

            from inkdigits.export import load_weights
            from inkdigits.model import MNISTClassifier
            from inkdigits.train import resolve_device
        except ModuleNotFoundError as error:
            raise BackendUnavailableError(
                f"device {device!r} runs on PyTorch, and {error.name} isn't installed: "
                "pip install 'inkdigits[train]'"
            ) from error
        self._torch = torch
        self._device = resolve_device(device)
        model = MNISTClassifier()
        # Only the counter of training batches is absent; load_weights has compared the rest.
        model.load_state_dict(load_weights(artifact), strict=False)
        self._model = model.to(self._device).eval()

    def logits(self, batch: FloatArray) -> FloatArray:
        """Logits of a batch."""
        with self._torch.inference_mode():
            result = self._model(self._torch.from_numpy(batch).to(self._device))
        answer: FloatArray = result.float().cpu().numpy()
        return answer


class DigitReader:
    """Reads digits with one artifact. Safe to call from several threads.

    Made by ``load``; satisfies ``Reader``.
    """

    def __init__(
        self, backend: Backend, metadata: ArtifactMetadata, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self._backend = backend
        self._limits = limits
        self.metadata = metadata
        self._warm_up()

    @property
    def model_version(self) -> str:
        """Names the artifact that answers."""
        return self.metadata.model_version

    def _warm_up(self) -> None:
        """Answer once, so that a model which can't is found at start and not by a user."""
        answer = self._backend.logits(np.zeros((2, 1, INK_SIZE, INK_SIZE), dtype=np.float32))
        if answer.shape != (2, 10) or not np.isfinite(answer).all():
            raise ArtifactCorruptError(
                f"the model answers a blank batch with shape {answer.shape} instead of (2, 10), "
                "or with values that are not finite"
            )

    def predict(self, picture: Picture) -> Prediction:
        """Read one picture.

        Args:
            picture: see ``preprocessing.preprocess``.

        Raises:
            ImageError: the picture can't be read or is over a limit.
        """
        return self.predict_batch([picture])[0]

    @overload
    def predict_batch(self, pictures: Sequence[Picture]) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self, pictures: Sequence[Picture], *, on_error: Literal["raise"]
    ) -> list[Prediction]: ...
    @overload
    def predict_batch(
        self, pictures: Sequence[Picture], *, on_error: Literal["return"]
    ) -> list[Prediction | ImageError]: ...

    def predict_batch(
        self, pictures: Sequence[Picture], *, on_error: Literal["raise", "return"] = "raise"
    ) -> list[Prediction] | list[Prediction | ImageError]:
        """Read many pictures; answers are in the same order.

        Args:
            pictures: see ``preprocessing.preprocess``.
            on_error: "raise" stops at the first picture that can't be read; "return" puts its
                error in its place and goes on.

        Raises:
            ImageError: with "raise", of the first picture that can't be read.
        """
        answers: list[Prediction | ImageError] = []
        for start in range(0, len(pictures), BATCH_SIZE):
            answers += self._read(pictures[start : start + BATCH_SIZE], on_error)
        return answers

    def _read(
        self, pictures: Sequence[Picture], on_error: Literal["raise", "return"]
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
        rows: dict[int, npt.NDArray[np.float64]] = {}
        if with_ink:
            logits = self._backend.logits(standardise(np.stack(list(with_ink.values()))))
            rows = dict(
                zip(with_ink, probabilities(logits, self.metadata.temperature), strict=True)
            )
        inference_ms = (time.perf_counter() - started) * 1000 / max(1, len(with_ink))
        return [
            ink
            if isinstance(ink, ImageError)
            else self._prediction(ink, rows.get(i), milliseconds[i], inference_ms)
            for i, ink in enumerate(inks)
        ]

    def _prediction(
        self,
        ink: npt.NDArray[np.uint8],
        row: npt.NDArray[np.float64] | None,
        preprocessing_ms: float,
        inference_ms: float,
    ) -> Prediction:
        decision: Decision
        reason: Reason | None
        if row is None:
            digit, confidence, shares = None, 0.0, UNIFORM
            decision, reason, inference_ms = "reject", "blank", 0.0
        else:
            digit, confidence = int(row.argmax()), float(row.max())
            shares = tuple(row.tolist())
            decision, reason = self.metadata.policy.decide(confidence)
        return Prediction(
            digit=digit,
            confidence=confidence,
            probabilities=shares,
            decision=decision,
            reason=reason,
            novelty=None,
            ink=ink,
            model_version=self.model_version,
            preprocessing_ms=preprocessing_ms,
            inference_ms=inference_ms,
        )


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    device: Device | None = None,
    threads: int = 1,
    limits: Limits = DEFAULT_LIMITS,
) -> DigitReader:
    """A reader with the artifact at ``path``, verified and warmed up.

    Args:
        path: an artifact as ``inkdigits train`` or ``inkdigits export`` writes it; None is the
            one that comes with the package.
        device: None runs on ONNX Runtime on the CPU; "cpu", "cuda", "mps" or "auto" on PyTorch,
            which the ``train`` extra installs.
        threads: ONNX Runtime's, for one batch.
        limits: sizes of pictures that are refused.

    Raises:
        ArtifactError: the artifact is missing, truncated, altered or of another version.
        BackendUnavailableError: the device or its library isn't here.
    """
    artifact = read_artifact(path)
    onnx_backend = OnnxBackend(artifact, threads)
    metadata = onnx_backend.metadata
    backend: Backend = onnx_backend if device is None else TorchBackend(artifact, device)
    return DigitReader(backend, metadata, limits)
