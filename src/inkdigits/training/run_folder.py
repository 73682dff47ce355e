"""The folder of a training run: its files, reading and writing them, and logging them elsewhere.

checkpoint.pt (to resume from), mnist_classifier.pt (the weights), optimal_temperature.json
(temperature and policy), novelty.json (the out-of-distribution score), synthetic.npz (what was
synthesised), run.json (how it was made, and its scores), and the artifact (``model.artifact``).
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from inkdigits.errors import ArtifactError, BackendUnavailableError, TrainingError
from inkdigits.model.artifact import (
    ARTIFACT_NAME,
    LINE_READER,
    SEGMENTER,
    read_artifact,
    read_network,
    write_atomically,
)
from inkdigits.model.backends import onnx_function
from inkdigits.model.networks import NETWORKS, NetworkName, load_network
from inkdigits.training.checkpoint import flat
from inkdigits.training.config import Folders
from inkdigits.training.export import export_line_reader, export_segmenter, network_of
from inkdigits.types import Json

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHTS_NAME = "mnist_classifier.pt"
TEMPERATURE_NAME = "optimal_temperature.json"
NOVELTY_NAME = "novelty.json"
RUN_NAME = "run.json"
SYNTHETIC_NAME = "synthetic.npz"
NETWORK_FILES = {SEGMENTER: "ink_segmenter.onnx", LINE_READER: "line_reader.onnx"}

# What torch raises for a damaged file, and network_of for one that holds no network.
_UNUSABLE = (pickle.UnpicklingError, RuntimeError, OSError, EOFError, TypeError, AttributeError)

Weights: TypeAlias = dict[str, torch.Tensor]

PURPOSES = {SEGMENTER: "finds ink", LINE_READER: "reads lines"}
EXPORTS = {SEGMENTER: export_segmenter, LINE_READER: export_line_reader}


def save_weights(weights: Weights, path: Path) -> None:
    """Write a state_dict that ``torch.load(..., weights_only=True)`` reads.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_weights({"bias": torch.zeros(2)}, Path(folder) / "a.pt")
    ...     torch.load(Path(folder) / "a.pt")
    {'bias': tensor([0., 0.])}
    """
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    write_atomically(path, buffer.getvalue())


def read_weights(path: Path, network: NetworkName | None = None) -> Weights:
    """Return a network's weights from a file or an artifact; None is any of ``model.NETWORKS``.

    A TrainingError says that they are missing, damaged or no such network's.

    >>> read_weights(Path("none.pt"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: there are no weights at none.pt; train them first
    """
    try:
        weights: Weights
        if path.suffix == ".onnx":
            weights = load_network(read_artifact(path)).state_dict()
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        found = network_of(weights)
    except FileNotFoundError as error:
        raise TrainingError(f"there are no weights at {path}; train them first") from error
    except _UNUSABLE as error:
        raise TrainingError(
            f"the weights {path} cannot be used: they are damaged, or those of none of "
            f"{', '.join(NETWORKS)}. Name an artifact, or mnist_classifier.pt of another run."
        ) from error
    if network is not None and type(found).__name__ != network:
        raise TrainingError(f"the weights {path} are {type(found).__name__}'s, not {network}'s")
    return weights


def read_network_file(name: str, path: Path | None) -> bytes:
    """Return the SEGMENTER or LINE_READER as an ONNX model: of that file, an artifact, or weights.

    None is the shipped one. A TrainingError says that the file is missing or holds no network.

    >>> read_network_file(SEGMENTER, Path("none.onnx"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: there is no network that finds ink at none.onnx
    """
    if path is None:
        return read_network(name)
    try:
        if path.suffix == ".pt":
            return EXPORTS[name](torch.load(path, map_location="cpu", weights_only=True))
        content = path.read_bytes()
        try:
            return read_network(name, path)
        except ArtifactError:
            onnx_function(content, threads=1)
            return content
    except FileNotFoundError as error:
        raise TrainingError(f"there is no network that {PURPOSES[name]} at {path}") from error
    except (ArtifactError, *_UNUSABLE) as error:
        raise TrainingError(f"{path} holds no network that {PURPOSES[name]}") from error


def digests_of(networks: Mapping[str, bytes]) -> Json:
    """Return the SHA-256 of networks as run.json names them.

    >>> list(digests_of({SEGMENTER: b""}))
    ['segmenter_sha256']
    """
    return {f"{name}_sha256": hashlib.sha256(one).hexdigest() for name, one in networks.items()}


def networks_of(folder: Path, provenance: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the SEGMENTER and LINE_READER of a run, as ONNX models: its own, or the shipped ones.

    The digests in the provenance decide. A TrainingError says that the network that found the ink
    is not there: the weights depend on it.

    >>> networks_of(Path("none"), {}).keys() == {SEGMENTER, LINE_READER}
    True
    """
    networks = {}
    for name, file in NETWORK_FILES.items():
        paths = [folder / file] if (folder / file).is_file() else []
        known = [read_network_file(name, path) for path in (*paths, None)]
        digest = provenance.get(f"{name}_sha256")
        same = [one for one in known if digest in (None, *digests_of({name: one}).values())]
        if not same and name == SEGMENTER:
            raise TrainingError(
                f"the network that found the ink for {folder} is not there; name it with "
                "--segmenter"
            )
        networks[name] = (same or known)[0]
    return networks


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_json(Path(folder) / "a.json", {"n": 1})
    ...     read_json(Path(folder) / "a.json")
    {'n': 1}
    """
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Json:
    """Return the JSON object in a file; a TrainingError says what is wrong with it.

    >>> read_json(Path("none.json"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: none.json is missing; run inkdigits train first
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise TrainingError(f"{path} is missing; run inkdigits train first") from error
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path} holds no JSON object")
    return content


def find_mlflow() -> Any:
    """Return the module of MLflow; a BackendUnavailableError says that it is not installed.

    >>> find_mlflow.__name__
    'find_mlflow'
    """
    try:
        import mlflow
    except ImportError as error:
        raise BackendUnavailableError.without("mlflow", "--track mlflow needs mlflow") from error
    return mlflow


def log_with_mlflow(described: Json, folders: Folders) -> None:
    """Log parameters, metrics per epoch, test scores, figures and the artifact of a run.

    ``described`` is what run.json holds. MLflow's own variables say where it goes:
    ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME``.

    Raises:
        BackendUnavailableError: MLflow is not installed.

    >>> list(flat({"augmentation": {"shift": 2}}))  # the names of parameters
    [('augmentation.shift', 2)]
    """
    mlflow = find_mlflow()
    with mlflow.start_run(run_name=described["model_version"]):
        mlflow.log_params(dict(flat(described["config"])))
        mlflow.set_tag("model_version", described["model_version"])
        for epoch in described["history"]:
            figures = {name: value for name, value in epoch.items() if name != "epoch"}
            mlflow.log_metrics(figures, step=epoch["epoch"])
        scores = described["test"]
        names = ("accuracy", "nll", "brier", "ece")
        mlflow.log_metrics({f"test_{name}": scores[name]["value"] for name in names})
        for name in (ARTIFACT_NAME, RUN_NAME):
            mlflow.log_artifact(str(folders.run / name))
        mlflow.log_artifacts(str(folders.figures), "figures")
