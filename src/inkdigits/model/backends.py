"""What runs an artifact's network, ONNX Runtime or PyTorch; and test-time augmentation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from inkdigits.decision.numbers import ReadStrip
from inkdigits.decision.policy import ACCEPT_NOVELTY
from inkdigits.errors import ArtifactCorruptError, BackendUnavailableError, InferenceError
from inkdigits.ink.segment import Segmenter
from inkdigits.model.artifact import (
    INT8_MODEL,
    LINE_READER,
    SEGMENTER,
    ArtifactMetadata,
    network_in,
)
from inkdigits.types import Device, Floats, Mask

if TYPE_CHECKING:
    import onnxruntime

Forward: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]
"""A network: (N, 1, 28, 28) standardised ink → logits (N, 10) and features (N, D), all float32."""

BATCH_SIZE = 128
"""Pictures per pass: more gains nothing on a CPU and takes about 150 kB of memory per picture."""
INT8_ERROR = 0.75
"""More than int8 changes a digit's log-odds (before the temperature) or energy."""
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class Backend(ABC):
    """What runs the network on (N, 1, 28, 28) float32 standardised ink."""

    @abstractmethod
    def forward(self, batch: Floats) -> tuple[Floats, Floats]:
        """Return logits (N, 10) and features (N, 128) of a batch, float32."""

    def read(
        self,
        batch: Floats,
        margin: float,
        *,
        at_any_risk: bool,  # noqa: ARG002  (for int8)
    ) -> tuple[Floats, Floats]:
        """Return the same with test-time augmentation below ``margin``; see ``forward_with_tta``.

        With ``at_any_risk`` decisions at every risk of the policy are those of float32, otherwise
        those at its own.
        """
        return forward_with_tta(self.forward, batch, margin)

    def logits(self, batch: Floats) -> Floats:
        """Return the logits of any number of pictures, in passes that bound the memory."""
        return _in_passes(self.forward, batch)[0]


class OnnxBackend(Backend):
    """ONNX Runtime on the CPU, in int8 if the artifact holds the network in int8 too.

    Int8 takes a third of the time. It answers only for ink that is far above the accept threshold;
    all other ink is read in float32 as well. So the decisions are those of float32, and so are
    temperature and policy.

    Args:
        artifact: the sealed ONNX model.
        threads: ONNX Runtime's, for one batch.
        int8: False reads everything in float32.

    Raises:
        ArtifactCorruptError: ONNX Runtime cannot load the artifact, or its metadata is invalid.
        ArtifactVersionError: made for another artifact, preprocessing or scoring version.
    """

    def __init__(self, artifact: bytes, threads: int, *, int8: bool = True) -> None:
        self._float32, properties = _network(artifact, threads)
        self.metadata = ArtifactMetadata.from_properties(properties)
        """What the artifact says of itself."""
        self.segmenter: Segmenter = onnx_function(network_in(properties, SEGMENTER), threads)
        """What finds ink, for ``ink.plain.find_foreground``."""
        self.line_reader: ReadStrip = onnx_function(network_in(properties, LINE_READER), threads)
        """What reads lines, for ``decision.numbers.read_number``."""
        self._int8: Forward | None = None
        if int8 and INT8_MODEL in properties:
            self._int8, _ = _network(network_in(properties, INT8_MODEL), threads)
            policy = self.metadata.policy
            sure = [
                _sure_confidence(self.metadata, threshold)
                for threshold in (policy.accept_threshold, *(c.threshold for c in policy.choices))
            ]
            self._sure, self._sure_at_any_risk = sure[0], max(sure)

    def forward(self, batch: Floats) -> tuple[Floats, Floats]:
        """Return logits (N, 10) and features (N, 128) of a batch, float32."""
        return self._read(batch, exactly=self._float32, at_any_risk=True)

    def read(self, batch: Floats, margin: float, *, at_any_risk: bool) -> tuple[Floats, Floats]:
        """Return the same with test-time augmentation, which reads in float32."""
        augmented = partial(forward_with_tta, self._float32, margin=margin)
        return _in_passes(partial(self._read, exactly=augmented, at_any_risk=at_any_risk), batch)

    def _read(self, batch: Floats, *, exactly: Forward, at_any_risk: bool) -> tuple[Floats, Floats]:
        if self._int8 is None:
            return exactly(batch)
        logits, features = self._int8(batch)
        rows = self._uncertain(logits, at_any_risk=at_any_risk).nonzero()[0]
        if len(rows):
            logits[rows], features[rows] = exactly(batch[rows])
        return logits, features

    def _uncertain(self, logits: Floats, *, at_any_risk: bool) -> Mask:
        """Return (N,) where float32 may decide otherwise than logits (N, 10) of int8 would."""
        highest = np.maximum.reduce(logits, axis=1, keepdims=True)
        odds = np.exp((logits - highest) * np.float32(1 / self.metadata.temperature))
        sure = self._sure_at_any_risk if at_any_risk else self._sure
        uncertain: Mask = np.add.reduce(odds, axis=1, dtype=np.float64) * sure > 1
        limit = self.metadata.policy.novelty_threshold
        # The energy is at most the negative of the highest logit, and near it where one is sure.
        if limit is None:
            return uncertain
        return uncertain | (highest[:, 0] < INT8_ERROR - min(limit, ACCEPT_NOVELTY))


def _sure_confidence(metadata: ArtifactMetadata, threshold: float | None) -> float:
    """Return the confidence from which no threshold, and no augmentation, is within INT8_ERROR."""
    scale = metadata.temperature
    strictest = max(metadata.policy.unreadable_below, threshold or 0.0)
    share = min(max(strictest, 1e-9), 1 - 1e-9)
    needed = max(metadata.second_look_margin, scale * math.log(share / (1 - share))) + INT8_ERROR
    return 1 / (1 + math.exp(-needed / scale))


def onnx_function(model: bytes, threads: int) -> Callable[[Floats], Floats]:
    """Return what an ONNX model with one input and the output "logits" computes.

    An ArtifactCorruptError says that it cannot be loaded.

    >>> from inkdigits.model.artifact import read_network
    >>> onnx_function(read_network(SEGMENTER), 1)(np.zeros((1, 1, 64, 64), np.float32)).shape
    (1, 2, 64, 64)
    """
    session = _session(model, threads)
    name = session.get_inputs()[0].name

    def compute(given: Floats) -> Floats:
        return _run(session, ["logits"], {name: given})[0]

    return compute


def _session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would burn the cores that the other workers need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # In some releases ONNX Runtime's exceptions have no base but Exception.
    except _onnxruntime_errors() as error:
        raise ArtifactCorruptError(f"ONNX Runtime cannot load the artifact: {error}") from error


def _network(model: bytes, threads: int) -> tuple[Forward, dict[str, str]]:
    """Return what runs an ONNX model, and the properties of the model."""
    session = _session(model, threads)
    name = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    if outputs != ["logits", "features"]:
        raise ArtifactCorruptError(
            f"the artifact's outputs are {', '.join(outputs)}, not logits and features"
        )

    def forward(batch: Floats) -> tuple[Floats, Floats]:
        logits, features = _run(session, outputs, {name: batch})
        return logits, features

    return forward, session.get_modelmeta().custom_metadata_map


def _run(
    session: onnxruntime.InferenceSession, outputs: list[str], given: dict[str, Floats]
) -> list[Floats]:
    try:
        answers: list[Floats] = session.run(outputs, given)
    except _onnxruntime_errors() as error:
        raise InferenceError(f"ONNX Runtime failed: {error}") from error
    return answers


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


class TorchBackend(Backend):
    """PyTorch on a CPU, an NVIDIA GPU (cuda) or an Apple GPU (mps); needs the ``train`` extra."""

    def __init__(self, artifact: bytes, device: Device) -> None:
        try:
            import torch

            from inkdigits.model.devices import resolve_device
            from inkdigits.model.networks import load_network
        except ModuleNotFoundError as error:
            needs = f"device {device!r} runs on PyTorch and needs {error.name}"
            raise BackendUnavailableError.without("train", needs) from error
        self._torch = torch
        self._device = resolve_device(device)
        self._model = load_network(artifact).to(self._device)

    def forward(self, batch: Floats) -> tuple[Floats, Floats]:
        """Return logits (N, 10) and features (N, 128) of a batch, float32."""
        with self._torch.inference_mode():
            features = self._model.features(self._torch.from_numpy(batch).to(self._device))
            logits = self._model.fc2(features)
        return logits.float().cpu().numpy(), features.float().cpu().numpy()


def forward_with_tta(
    forward: Forward, inks: Floats, margin: float, batch_size: int = BATCH_SIZE
) -> tuple[Floats, Floats]:
    """Run a network on standardised ink, and average over shifts where it is uncertain.

    Ink whose two highest logits lie close together is read again, shifted by a pixel up, down,
    left and right: shifting the rest changes nothing and costs four times as much again. Averaging
    over shifted views is Krizhevsky, Sutskever and Hinton's ("ImageNet Classification with Deep
    Convolutional Neural Networks", NIPS 2012, section 4.1); docs/experiments/ has what it gains.

    ``inks`` are (N, 1, 28, 28), N at least 1. Below ``margin`` between the two highest logits ink
    is read again; 0 reads each once. Returns logits (N, 10) and features (N, D), float32. The last
    layer is linear, so the mean logits are those of the mean features.

    >>> sure = lambda batch: (np.eye(10, dtype=np.float32)[:1] * 9, np.float32([[1, 2]]))
    >>> forward_with_tta(sure, np.zeros((1, 1, 28, 28), np.float32), margin=6.0)[0].max()
    np.float32(9.0)
    """
    return _in_passes(partial(_forward_batch, forward, margin), inks, batch_size)


def _in_passes(
    forward: Forward, inks: Floats, batch_size: int = BATCH_SIZE
) -> tuple[Floats, Floats]:
    starts = range(0, max(1, len(inks)), batch_size)
    parts = [forward(inks[start : start + batch_size]) for start in starts]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _forward_batch(forward: Forward, margin: float, batch: Floats) -> tuple[Floats, Floats]:
    logits, features = forward(batch)
    highest = np.partition(logits, -2, axis=1)
    rows = (highest[:, -1] - highest[:, -2] < margin).nonzero()[0]
    if not len(rows):
        return logits, features
    again = batch[rows]
    views = np.concatenate([_shifted(again, down, right) for down, right in _SHIFTS])
    # No more per pass than the batch has, or the four of one picture.
    size = max(len(batch), len(_SHIFTS))
    parts = [forward(views[start : start + size]) for start in range(0, len(views), size)]
    share = np.float32(1 / (1 + len(_SHIFTS)))
    averaged = []
    for once, of_views in zip((logits, features), zip(*parts, strict=True), strict=True):
        sums = np.concatenate(of_views).reshape(len(_SHIFTS), len(rows), -1).sum(axis=0)
        mean = once.copy()
        mean[rows] = (once[rows] + sums) * share
        averaged.append(mean)
    return averaged[0], averaged[1]


def _shifted(batch: Floats, down: int, right: int) -> Floats:
    """Shift each picture by a pixel and repeat its edge, for standardised background is not 0."""
    height, width = batch.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return batch[:, :, rows[:, None], columns]
