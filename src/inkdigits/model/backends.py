"""What runs an artifact's network, ONNX Runtime or PyTorch; and test-time augmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from inkdigits.errors import ArtifactCorruptError, BackendUnavailableError
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.types import Device, Floats

if TYPE_CHECKING:
    import onnxruntime

Forward: TypeAlias = Callable[[Floats], tuple[Floats, Floats]]
"""A network: (N, 1, 28, 28) standardised ink → logits (N, 10) and features (N, D), all float32."""

BATCH_SIZE = 128
"""Pictures per pass: more gains nothing on a CPU and takes about 150 kB of memory per picture."""
_SHIFTS = ((1, 0), (-1, 0), (0, 1), (0, -1))


class Backend(ABC):
    """What runs the network on (N, 1, 28, 28) float32 standardised ink."""

    @abstractmethod
    def forward(self, batch: Floats) -> tuple[Floats, Floats]:
        """Return logits (N, 10) and features (N, 128) of a batch, float32."""

    def logits(self, batch: Floats) -> Floats:
        """Return the logits of a batch."""
        return self.forward(batch)[0]


class OnnxBackend(Backend):
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
        # In some releases ONNX Runtime's exceptions have no base but Exception.
        except _onnxruntime_errors() as error:
            raise ArtifactCorruptError(f"ONNX Runtime cannot load the artifact: {error}") from error
        self._input = self._session.get_inputs()[0].name
        self.metadata = ArtifactMetadata.from_properties(
            self._session.get_modelmeta().custom_metadata_map
        )
        """What the artifact says of itself."""
        self._outputs = [output.name for output in self._session.get_outputs()]
        if self._outputs != ["logits", "features"]:
            raise ArtifactCorruptError(
                f"the artifact's outputs are {', '.join(self._outputs)}, not logits and features"
            )

    def forward(self, batch: Floats) -> tuple[Floats, Floats]:
        """Return logits (N, 10) and features (N, 128) of a batch, float32."""
        logits, features = self._session.run(self._outputs, {self._input: batch})
        return logits, features


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
            raise BackendUnavailableError(
                f"device {device!r} runs on PyTorch, and {error.name} is not installed. Run "
                "pip install 'inkdigits[train]'"
            ) from error
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
    parts = [
        _forward_batch(forward, inks[start : start + batch_size], margin)
        for start in range(0, max(1, len(inks)), batch_size)
    ]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _forward_batch(forward: Forward, batch: Floats, margin: float) -> tuple[Floats, Floats]:
    logits, features = forward(batch)
    highest = np.partition(logits, -2, axis=1)
    rows = np.flatnonzero(highest[:, -1] - highest[:, -2] < margin)
    if not len(rows):
        return logits, features
    again = batch[rows]
    # One view per pass keeps the memory of a batch what it is without augmentation.
    views = [forward(_shifted(again, down, right)) for down, right in _SHIFTS]
    share = np.float32(1 / (1 + len(views)))
    logits, features = logits.copy(), features.copy()
    logits[rows] = (logits[rows] + sum(view[0] for view in views)) * share
    features[rows] = (features[rows] + sum(view[1] for view in views)) * share
    return logits, features


def _shifted(batch: Floats, down: int, right: int) -> Floats:
    """Shift each picture by a pixel and repeat its edge, for standardised background is not 0."""
    height, width = batch.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return batch[:, :, rows[:, None], columns]
