"""What runs the network of an artifact: ONNX Runtime, or PyTorch where it is installed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from inkdigits.errors import ArtifactCorruptError, BackendUnavailableError
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.types import Device, Floats

if TYPE_CHECKING:
    import onnxruntime


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
