"""One training run, from data to a verified artifact with its figures; and its steps alone.

``run_folder`` says what a run's folder holds. The test part of the data is read once per run, by
the last step, through the artifact as it will be served; nothing is chosen by it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from inkdigits.calibration.scores import reliability_curve
from inkdigits.calibration.temperature import probabilities
from inkdigits.data.groups import calibration_groups
from inkdigits.data.mnist import Digits, Splits
from inkdigits.data.synthesis import Material, SynthesisConfig, synthesise
from inkdigits.data.synthesis_cache import concatenate
from inkdigits.decision.drift import PROVENANCE
from inkdigits.decision.policy import METHOD, DecisionPolicy
from inkdigits.errors import TrainingError
from inkdigits.evaluation import plots
from inkdigits.evaluation.architecture import architecture_diagram, trace_layers
from inkdigits.evaluation.compare import compare
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.evaluation.metrics import Evaluation, evaluate
from inkdigits.evaluation.report import contact_sheet, misread_sheet
from inkdigits.ink.normalize import PREPROCESSING_VERSION
from inkdigits.ink.png import encode_png
from inkdigits.ink.segment import Segmenter
from inkdigits.model.artifact import (
    ARTIFACT_NAME,
    LINE_READER,
    SEGMENTER,
    with_provenance,
    write_atomically,
)
from inkdigits.reader import DigitReader, load
from inkdigits.training.added import Added, between, check_apart, read_added
from inkdigits.training.augmentation import augment
from inkdigits.training.calibrate import (
    GROUP_SIZE,
    OperatingPoint,
    find_operating_point,
)
from inkdigits.training.config import Folders, RunConfig, TrainConfig
from inkdigits.training.export import export
from inkdigits.training.fit import FitInputs, FitResult, fit
from inkdigits.training.provenance import exported_provenance, origin_of, scores_for_provenance
from inkdigits.training.run_folder import (
    CHECKPOINT_NAME,
    NOVELTY_NAME,
    RUN_NAME,
    TEMPERATURE_NAME,
    WEIGHTS_NAME,
    Weights,
    digests_of,
    networks_of,
    read_json,
    read_network_file,
    read_weights,
    save_weights,
    write_json,
)
from inkdigits.types import Json, Report

# A run's own synthesis has another seed by default.
_CALIBRATION_SEED = 1_000_001
_MOST_MISREAD = 40

Synthetic: TypeAlias = tuple[Digits, Json]
"""Synthetic pictures to learn from, and how they were made."""


def train(
    splits: Splits,
    run: RunConfig,
    device: torch.device,
    synthetic: Sequence[Synthetic] = (),
    report: Report = lambda _: None,
) -> Json:
    """Fit, calibrate, export and evaluate; write every file of the run.

    It returns what run.json holds, and calls ``report`` with each line of what a step found. The
    errors are those of ``fit``, ``find_operating_point`` and ``load``.

    >>> none = Digits(torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0))
    >>> folders = Folders(Path("saved_models"), Path("figures"), Path("logs"))
    >>> run = RunConfig(TrainConfig(), folders, initial=Path("none.pt"))
    >>> train(Splits(none, none, none, none), run, torch.device("cpu"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: there are no weights at none.pt; train them first
    """
    began = time.perf_counter()
    folders = run.folders
    networks = {
        SEGMENTER: read_network_file(SEGMENTER, run.segmenter),
        LINE_READER: read_network_file(LINE_READER, run.line_reader),
    }
    material = Material(splits.calibration, splits.calibration_hands, networks[SEGMENTER])
    before, added = _added(splits, run, material.find_ink(), report)
    result = _fit(splits, run, device, [made for made, _ in synthetic], added, report)
    point = _calibrate(result.weights, material, run, bool(synthetic), report)
    synthesis = [described for _, described in synthetic]
    provenance = _provenance(run, splits, synthesis, networks, result.machines)
    provenance[PROVENANCE] = point.drift.to_dict()
    if added is not None:
        provenance["added"] = added.described
    reader, scores = _export_and_evaluate(
        result.weights, point, provenance, networks, splits.test, folders
    )
    report(f"test, as encoded PNGs through the artifact:\n{scores.summary()}")
    described = {
        "model_version": reader.model_version,
        **provenance,
        "training_seconds": sum(epoch.seconds for epoch in result.history),
        # The time before an interruption is not known.
        "run_seconds": None if run.resume else time.perf_counter() - began,
        "kept_epoch": result.kept_epoch,
        "history": [asdict(epoch) for epoch in result.history],
        **point.to_dict(),
        "policy": asdict(point.policy),
        "test": scores.to_dict(),
    }
    if before is not None and added is not None and len(added.held_back):
        held_back = compare(before, reader, added.held_back)
        described |= {"held_back": held_back.to_dict(), "suspect_labels": added.suspects}
        report(f"held back, before (A) and after (B):\n{held_back.table()}")
    write_json(folders.run / RUN_NAME, described)
    return described


def _added(
    splits: Splits, run: RunConfig, segmenter: Segmenter, report: Report
) -> tuple[DigitReader | None, Added | None]:
    """Return the pictures to learn from beside MNIST, and the model that was there before them."""
    if not run.added.sources:
        return None, None
    is_artifact = run.initial is not None and run.initial.suffix == ".onnx"
    before = load(run.initial if is_artifact else None)
    figures = run.folders.figures
    added = read_added(run.added, before, len(splits.train), figures, report, segmenter)
    check_apart(added.learned, splits.test)
    return before, added


def _fit(
    splits: Splits,
    run: RunConfig,
    device: torch.device,
    made: list[Digits],
    added: Added | None,
    report: Report,
) -> FitResult:
    """Train on MNIST, on what was made and on what was added, and write the weights."""
    folders = run.folders
    initial = read_weights(run.initial, run.train.network) if run.initial else None
    _draw_before(splits.train, run.train, folders.figures)
    if made:
        sheet = contact_sheet(made[0].inks[:240].numpy(), per_row=24)
        write_atomically(folders.figures / "synthetic_preview.png", sheet)
    train_part = splits.train
    if added is not None:
        train_part = added.mixed_with(train_part, run.train.seed)
        _, others = added.learned.divided()
        if made:
            made = [*made, others]
        elif len(others):
            report(f"{len(others):,} pictures without a digit teach nothing with --synthetic 0")
    result = fit(
        FitInputs(train_part, splits.validation, concatenate(made) if made else None, initial),
        run.train,
        device,
        checkpoint=folders.run / CHECKPOINT_NAME,
        resume=run.resume,
        log_dir=folders.logs,
        progress=run.progress,
    )
    if added is not None and initial is not None:
        result = replace(result, weights=between(initial, result.weights))
    save_weights(result.weights, folders.run / WEIGHTS_NAME)
    history = [asdict(epoch) for epoch in result.history]
    figure = plots.training_history(history, result.kept_epoch)
    plots.save(figure, folders.figures / "training_history.png")
    kept = result.history[result.kept_epoch - 1]
    report(
        f"trained: epoch {kept.epoch} of {len(history)} is kept, validation loss "
        f"{kept.validation_loss:.4f}, accuracy {100 * kept.validation_accuracy:.2f} % "
        f"(n = {len(splits.validation):,})"
    )
    return result


def _provenance(
    run: RunConfig,
    splits: Splits,
    synthesis: Sequence[Json],
    networks: Mapping[str, bytes],
    machines: Sequence[Json],
) -> Json:
    """Return how a run made its model, as run.json and the artifact say it."""
    data: Json = dict(splits.origin)
    for name in ("train", "validation", "calibration", "test"):
        part: Digits = getattr(splits, name)
        data[name] = {"n": len(part), "sha256": part.digest()}
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": data,
        "preprocessing_version": PREPROCESSING_VERSION,
        "config": {**asdict(run.train), "risk": run.risk, "limit": run.limit},
        "synthesis": list(synthesis),
        **digests_of(networks),
        "started_from": None if run.initial is None else origin_of(run.initial),
        **machines[-1],
        "trained_before_on": list(machines[:-1]),
        "calibrated_on": {"hardware": hardware(), "versions": versions()},
    }


def _export_and_evaluate(
    weights: Weights,
    point: OperatingPoint,
    provenance: Json,
    networks: Mapping[str, bytes],
    test: Digits,
    folders: Folders,
) -> tuple[DigitReader, Evaluation]:
    """Write the artifact, evaluate it as it will be served, and add its scores to it."""
    path = folders.run / ARTIFACT_NAME
    artifact = export(weights, point.temperature, point.policy, provenance, networks=networks)
    write_atomically(path, artifact)
    reader = load(path)
    scores = evaluate_reader(reader, test, folders.figures)
    provenance = {**provenance, "test": scores_for_provenance(scores)}
    write_atomically(path, with_provenance(artifact, provenance))
    return reader, scores


def _calibrate(
    weights: Weights, material: Material, run: RunConfig, with_synthetic: bool, report: Report
) -> OperatingPoint:
    """Find the operating point on clean digits; write it to the run's folder, and a figure.

    With synthetic digits, as many pictures without one are made too, and the risk must be kept in
    each of the ``calibration_groups``. Without, everything is fitted to the clean digits.
    """
    folders = run.folders
    n, made = 0, None
    if with_synthetic:
        n = min(run.calibration_synthetic or len(material.digits), len(material.digits))
        composition = SynthesisConfig(
            digits=n, others=n, fonts="validation", seed=_CALIBRATION_SEED
        )
        made = synthesise(material, composition)
    clean, groups = calibration_groups(material, _CALIBRATION_SEED, min(GROUP_SIZE, n))
    point = find_operating_point(
        weights, clean, synthetic=made, groups=groups, risk=run.risk, report=report
    )
    saved = {"temperature": point.temperature, "policy": asdict(point.policy), **point.to_dict()}
    write_json(folders.run / TEMPERATURE_NAME, saved)
    write_json(folders.run / NOVELTY_NAME, {"method": METHOD})
    figure = plots.reliability_diagram(
        reliability_curve(probabilities(point.logits, 1.0), point.labels),
        reliability_curve(probabilities(point.logits, point.temperature), point.labels),
    )
    plots.save(figure, folders.figures / "reliability.png")
    return point


def export_run(folder: Path, segmenter: Path | None = None) -> bytes:
    """Return the artifact of a run's folder; a TrainingError names a missing or invalid file.

    ``segmenter`` finds the ink instead of the run's own network.

    >>> export_run(Path("none"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: there are no weights at none/mnist_classifier.pt; train them \
first
    """
    weights = read_weights(folder / WEIGHTS_NAME)
    saved = read_json(folder / TEMPERATURE_NAME)
    try:
        temperature = float(saved["temperature"])
        policy = DecisionPolicy.from_dict(saved["policy"])
        margin = float(saved["second_look_margin"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TrainingError(
            f"{folder / TEMPERATURE_NAME} is invalid: {error!r}; train it again"
        ) from error
    provenance = exported_provenance(folder, saved)
    learned = provenance.get("preprocessing_version", PREPROCESSING_VERSION)
    if learned != PREPROCESSING_VERSION:
        raise TrainingError(
            f"the weights in {folder} learned from ink of preprocessing version {learned}, and "
            f"this is version {PREPROCESSING_VERSION}; train them again"
        )
    method = read_json(folder / NOVELTY_NAME).get("method")
    if method != METHOD:
        raise TrainingError(
            f"{folder / NOVELTY_NAME} names the out-of-distribution score {method!r}; supported is "
            f"{METHOD!r} alone. Train it again."
        )
    given = {} if segmenter is None else {SEGMENTER: read_network_file(SEGMENTER, segmenter)}
    unknown = dict.fromkeys(f"{name}_sha256" for name in given)
    networks = networks_of(folder, provenance | unknown) | given
    provenance |= digests_of(networks)
    return export(weights, temperature, policy, provenance, margin, networks)


def evaluate_reader(reader: DigitReader, digits: Digits, figures: Path) -> Evaluation:
    """Score a reader on labelled ink as a user would send it: as encoded PNGs.

    Writes the confusion matrix and the misread digits into the folder ``figures``.

    >>> import inkdigits, tempfile
    >>> blank = Digits(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([3, 7]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     evaluate_reader(inkdigits.load(), blank, Path(folder)).n
    2
    """
    pictures = [encode_png(ink) for ink in digits.inks.numpy()]
    shares = np.array([p.probabilities for p in reader.predict_batch(pictures)])
    labels = digits.labels.numpy()
    writers = None if digits.writers is None else digits.writers.numpy()
    scores = evaluate(shares, labels, writers=writers)
    plots.save(plots.confusion_matrix_figure(scores.confusion), figures / "confusion_matrix.png")
    shown = scores.misread[:_MOST_MISREAD]
    read, confidence = shares[shown].argmax(axis=1), shares[shown].max(axis=1)
    sheet = misread_sheet(digits.inks.numpy()[shown], labels[shown], read, confidence)
    if sheet is not None:
        write_atomically(figures / "misread.png", sheet)
    return scores


def _draw_before(digits: Digits, config: TrainConfig, figures: Path) -> None:
    """Write the architecture, and eight digits, each in a row of eight augmented copies."""
    diagram = architecture_diagram(config.network, trace_layers(config.network))
    plots.save(diagram, figures / "model_architecture.png")
    originals = digits.inks[:8]
    batch = originals.repeat_interleave(8, dim=0).unsqueeze(1).float() / 255.0
    generator = torch.Generator().manual_seed(config.seed)
    changed = augment(batch, config.augmentation, generator)
    changed = (changed * 255.0).round().byte().view(len(originals), 8, 28, 28)
    rows = torch.cat([originals.unsqueeze(1), changed], dim=1).flatten(0, 1).numpy()
    write_atomically(figures / "augmentation_preview.png", contact_sheet(rows, per_row=9))
