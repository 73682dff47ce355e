"""A float32 artifact → the same artifact with the network in int8 beside it.

Static quantisation after training (Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", CVPR 2018): weights per output channel, activations
per tensor, their ranges taken from training ink. The first convolution and the last linear layer
stay in float32: they are 1 % of the arithmetic, and no other layer can make up for their error.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from inkdigits.calibration.temperature import probabilities
from inkdigits.data.corruptions import corrupt_mildly
from inkdigits.data.mnist import Splits
from inkdigits.data.synthesis import ink_finder
from inkdigits.decision.policy import energy
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import standardise
from inkdigits.model.artifact import (
    ARTIFACT_NAME,
    INT8_MODEL,
    SEGMENTER,
    read_artifact,
    read_metadata,
    read_network,
    with_metadata,
    with_provenance,
    write_atomically,
)
from inkdigits.model.backends import OnnxBackend, onnx_function
from inkdigits.reader import load
from inkdigits.training.config import Folders
from inkdigits.training.pipeline import evaluate_reader
from inkdigits.training.provenance import scores_for_provenance
from inkdigits.training.run_folder import RUN_NAME, read_json, write_json
from inkdigits.types import Floats, Ink, Report

RANGE_INKS: Final = 2_000
"""Pictures of training ink that the ranges of activations are taken from."""


@dataclass(frozen=True, slots=True)
class Int8Changes:
    """How many of ``n`` pictures an artifact reads or decides otherwise in int8 than in float32."""

    n: int
    readings: int
    decisions: int

    def check(self) -> None:
        """Raise TrainingError if more than 0.02 % of readings or 0.05 % of decisions changed."""
        if self.readings > 0.0002 * self.n or self.decisions > 0.0005 * self.n:
            raise TrainingError(
                f"int8 changes {self.readings} readings and {self.decisions} decisions of "
                f"{self.n:,}; allowed are 0.02 % and 0.05 %. Serve this network in float32"
            )


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Standardised ink in batches, as ONNX Runtime's quantisation asks for it."""

    def __init__(self, inks: Ink, name: str) -> None:
        batches = np.array_split(standardise(inks), -(-len(inks) // 100))
        self._batches = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, Floats] | None:
        return next(self._batches, None)


def with_int8(artifact: bytes, inks: Ink) -> bytes:
    """Return the artifact with its network in int8 as one more entry, sealed again.

    The file stays a plain ONNX model of the float32 network. Its version is another one, since
    probabilities may change; an int8 network that it holds is replaced.

    Args:
        artifact: as ``export`` makes it.
        inks: (N, 28, 28) uint8, training ink.

    >>> artifact = with_int8(read_artifact(), np.zeros((1, 28, 28), np.uint8))
    >>> OnnxBackend(artifact, threads=1).logits(np.zeros((2, 1, 28, 28), np.float32)).shape
    (2, 10)
    """
    proto = onnx.load_model_from_string(artifact)
    del proto.metadata_props[:]
    model = _quantised(proto, inks)
    return with_metadata(artifact, read_metadata(artifact), {INT8_MODEL: model}, renew=True)


def _quantised(proto: onnx.ModelProto, inks: Ink) -> bytes:
    """Return the network in int8, as an ONNX model without metadata.

    Weights have 7 bits (``reduce_range``): sums of 8-bit products overflow on processors without
    VNNI. The nodes are QuantizeLinear and DequantizeLinear (QDQ), which ONNX Runtime fuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        _fold_batch_normalisation(proto, source)
        graph = onnx.load(source).graph
        layers = [node.name for node in graph.node if node.op_type in {"Conv", "Gemm"}]
        # Its warnings advise to fold batch normalisation first, which has been done.
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                source,
                target,
                _Batches(inks, graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[layers[0], layers[-1]],
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            logging.disable(logging.NOTSET)
        return target.read_bytes()


def _fold_batch_normalisation(proto: onnx.ModelProto, target: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def int8_changes(artifact: bytes, inks: Ink) -> Int8Changes:
    """Return what an artifact reads and decides otherwise in int8 than in float32.

    A decision counts as changed if it changes at any of the policy's risks.

    Args:
        artifact: as ``with_int8`` makes it.
        inks: (N, 28, 28) uint8, preprocessed, N at least 1.

    >>> int8_changes(read_artifact(), np.zeros((2, 28, 28), np.uint8))
    Int8Changes(n=2, readings=0, decisions=0)
    """
    fast, exact = (
        _answers(OnnxBackend(artifact, threads=1, int8=int8), inks) for int8 in (True, False)
    )
    pairs = list(zip(fast, exact, strict=True))
    readings = sum(a[0] != b[0] or a[2] != b[2] for a, b in pairs)
    return Int8Changes(len(inks), readings, sum(a[1:] != b[1:] for a, b in pairs))


def _answers(backend: OnnxBackend, inks: Ink) -> list[tuple[object, ...]]:
    """Return for each ink the digit and the decision at the policy's own risk, then at all."""
    metadata = backend.metadata
    answers: list[tuple[object, ...]] = [()] * len(inks)
    for risks in ((None,), tuple(choice.risk for choice in metadata.policy.choices)):
        logits, _ = backend.read(
            standardise(inks), metadata.second_look_margin, at_any_risk=risks != (None,)
        )
        shares = probabilities(logits, metadata.temperature)
        for at, (row, score) in enumerate(zip(shares, energy(logits).tolist(), strict=True)):
            found = [
                metadata.policy.decide(float(row.max()), novelty=score, risk=risk)[0]
                for risk in risks
            ]
            answers[at] += (int(row.argmax()), *found)
    return answers


def quantise_run(folders: Folders, splits: Splits, report: Report = lambda _: None) -> None:
    """Add the network in int8 to a run's artifact, if it answers as float32 does.

    Compares both on the calibration digits, clean and mildly corrupted. The artifact's version
    changes, and its scores on the test part are measured again, also in run.json if there is one.

    Args:
        folders: of the run, whose artifact ``export_run`` or ``train`` made, and of figures.
        splits: the data. The ranges of activations are taken from the train part.
        report: called with each line of what was found.

    Raises:
        ArtifactError: there is no artifact in the folder, or it is damaged.
        TrainingError: too many answers change; the artifact stays as it was.

    >>> quantise_run(Folders(Path("none"), Path("none"), Path("none")), None)
    Traceback (most recent call last):
    inkdigits.errors.ArtifactNotFoundError: there is no artifact at none/mnist_classifier.onnx...
    """
    path, run = folders.run / ARTIFACT_NAME, folders.run / RUN_NAME
    artifact = read_artifact(path)
    every = max(1, len(splits.train) // RANGE_INKS)
    artifact = with_int8(artifact, splits.train.inks[::every][:RANGE_INKS].numpy())
    clean = splits.calibration.inks.numpy()
    pictures = (*clean, *corrupt_mildly(clean, np.random.default_rng(0)))
    preprocess = ink_finder(onnx_function(read_network(SEGMENTER, path), threads=1))
    changes = int8_changes(artifact, np.stack([preprocess(picture) for picture in pictures]))
    changes.check()
    report(
        f"int8 changes {changes.readings} readings and {changes.decisions} decisions of "
        f"{changes.n:,}"
    )
    write_atomically(path, artifact)
    reader = load(path)
    scores = evaluate_reader(reader, splits.test, folders.figures)
    report(f"test, as encoded PNGs through the int8 artifact:\n{scores.summary()}")
    provenance = {**reader.metadata.provenance, "test": scores_for_provenance(scores)}
    write_atomically(path, with_provenance(artifact, provenance))
    if run.is_file():
        new = {"model_version": reader.model_version, "int8_changes": asdict(changes)}
        write_json(run, {**read_json(run), **new, "test": scores.to_dict()})
