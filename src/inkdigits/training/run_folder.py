"""The folder of a training run: what its files are called, and reading and writing them.

checkpoint.pt (to resume from), mnist_classifier.pt (the weights), optimal_temperature.json
(temperature and policy), novelty.json (what scores novelty), synthetic.npz (what was synthesised)
and run.json (how it was made and what it scores). The artifact is ``artifact``'s.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from inkdigits.errors import TrainingError
from inkdigits.model.artifact import write_atomically
from inkdigits.model.networks import NetworkName
from inkdigits.training.export import network_of

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHTS_NAME = "mnist_classifier.pt"
TEMPERATURE_NAME = "optimal_temperature.json"
NOVELTY_NAME = "novelty.json"
RUN_NAME = "run.json"
SYNTHETIC_NAME = "synthetic.npz"

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a run writes.

    Attributes:
        run: weights, temperature, artifact, run.json and the checkpoint.
        figures: PNG files.
        logs: TensorBoard's event files.
    """

    run: Path
    figures: Path
    logs: Path


def save_weights(weights: Weights, path: Path) -> None:
    """Write a state_dict that ``torch.load(..., weights_only=True)`` reads."""
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    write_atomically(path, buffer.getvalue())


def read_weights(path: Path, network: NetworkName | None = None) -> Weights:
    """The state_dict that ``save_weights`` wrote.

    Args:
        path: the file.
        network: whose they must be; None is any of ``model.NETWORKS``.

    Raises:
        TrainingError: missing, damaged, or no such network's; keys are named.
    """
    weights = read_state(path)
    try:
        found = network_of(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise TrainingError(f"the weights {path} can't be used: {error}") from error
    if network is not None and type(found).__name__ != network:
        raise TrainingError(f"the weights {path} are {type(found).__name__}'s, not {network}'s")
    return weights


def read_state(path: Path) -> Weights:
    """The state_dict in a file, of whichever network.

    Raises:
        TrainingError: missing or damaged.
    """
    if not path.is_file():
        raise TrainingError(f"there are no weights at {path}; train them first")
    try:
        weights: Weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError) as error:
        raise TrainingError(f"the weights {path} can't be used: {error}") from error
    return weights


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        TrainingError: missing, unreadable or no object.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise TrainingError(f"{path} is missing; run inkdigits train or calibrate first") from error
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path} holds no JSON object")
    return content
