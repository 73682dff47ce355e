"""What a run's files say of weights that were made before: by another run, or by the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdigits.data.mnist import SplitName
from inkdigits.decision.drift import PROVENANCE
from inkdigits.evaluation.metrics import Evaluation
from inkdigits.model.artifact import read_artifact, read_metadata
from inkdigits.training.checkpoint import weights_digest
from inkdigits.training.run_folder import RUN_NAME, read_json, read_weights
from inkdigits.types import Json

# Copied from the run.json of the weights that a run started or learned from.
_ORIGIN_KEYS = (
    *("config", "synthesis", "started_from", "device", "hardware", "kept_epoch"),
    *("training_seconds", "history"),
)
# Copied from run.json into an artifact that is exported again.
_EXPORTED_KEYS = (
    *("created_at", "data", "preprocessing_version", "config", "synthesis", "started_from"),
    *("device", "segmenter_sha256", "line_reader_sha256"),
    *("autocast", "hardware", "versions", "trained_before_on", "calibrated_on"),
)
_SCORE_KEYS = ("n", "n_correct", "level", "accuracy", "nll", "brier", "ece", "ece_adaptive")


def origin_of(path: Path) -> Json:
    """Return the digest of a file of weights, and how their own run made them.

    >>> origin_of(Path("none.pt"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: there are no weights at none.pt; train them first
    """
    origin: Json = {"sha256": weights_digest(read_weights(path))}
    run = path.parent / RUN_NAME
    return origin | (_picked(read_json(run), _ORIGIN_KEYS) if run.is_file() else {})


def exported_provenance(run_folder: Path, temperature: Mapping[str, Any]) -> Json:
    """Return the provenance of an artifact that is exported from a run's folder again.

    Without a run.json, nothing is known of the training. ``temperature`` is what
    optimal_temperature.json holds.

    >>> exported_provenance(Path("none"), {})
    {}
    """
    run = run_folder / RUN_NAME
    content = read_json(run) if run.is_file() else {}
    known = _picked(content, _EXPORTED_KEYS)
    # The scores are of the same temperature and policy, or they are not this artifact's.
    if "test" in content and content.get("policy") == temperature.get("policy"):
        known["test"] = _picked(content["test"], _SCORE_KEYS)
    return known | _picked(temperature, (PROVENANCE,))


def split_of(run: Mapping[str, Any]) -> SplitName | None:
    """Return the split of MNIST that a run learned from, by its run.json or provenance.

    None is of a run of which nothing is known. Runs from before there was a choice have no name.

    >>> split_of({"data": {"split_seed": 20261123}})
    'pictures'
    """
    if "data" not in run:
        return None
    return "writers" if run["data"].get("split") == "writers" else "pictures"


def split_of_weights(path: Path) -> SplitName | None:
    """Return the split of MNIST that an artifact, or a file of weights, learned from, if known.

    A run that starts from them must keep to it, or it would be calibrated on what they learned.

    >>> split_of_weights(Path("none.pt"))
    """
    if path.suffix == ".onnx":
        return split_of(read_metadata(read_artifact(path)).provenance)
    run = path.parent / RUN_NAME
    return split_of(read_json(run)) if run.is_file() else None


def scores_for_provenance(scores: Evaluation) -> Json:
    """Return the scores of an evaluation that fit into an artifact: single figures only.

    >>> import numpy as np
    >>> from inkdigits.evaluation.metrics import evaluate
    >>> "confusion" in scores_for_provenance(evaluate(np.eye(10), np.arange(10)))
    False
    """
    return _picked(scores.to_dict(), _SCORE_KEYS)


def _picked(values: Mapping[str, Any], names: Sequence[str]) -> Json:
    return {name: values[name] for name in names if name in values}
