"""One training run, from data to a verified artifact with its figures; each step by itself too.

``run_files`` says what a run's folder holds.
The test part of the data is read once, by the last step, through the artifact as it will be
served; nothing is chosen by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from inkdigits.calibration.scores import reliability_curve
from inkdigits.calibration.temperature import probabilities
from inkdigits.data.corruptions import corrupt_mildly
from inkdigits.data.mnist import SPLIT_SEED, Digits, Splits
from inkdigits.data.synthesis import SynthesisConfig, synthesise
from inkdigits.data.synthesis_cache import (
    concatenate,
    describe_synthesis,
    read_or_write,
    read_synthetic,
)
from inkdigits.decision.drift import PROVENANCE
from inkdigits.decision.ood import METHOD
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.risk import RISK
from inkdigits.errors import TrainingError
from inkdigits.evaluation import plots
from inkdigits.evaluation.architecture import architecture_diagram, trace_layers
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.evaluation.metrics import Evaluation, evaluate
from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import ARTIFACT_NAME, NOVELTY_PARAMETERS, write_atomically
from inkdigits.reader import DigitReader, load
from inkdigits.training.augmentation import augment
from inkdigits.training.calibrate import OperatingPoint, describe, find_operating_point
from inkdigits.training.checkpoint import TrainConfig, weights_digest
from inkdigits.training.export import export, network_of, with_provenance
from inkdigits.training.fit import fit
from inkdigits.training.run_folder import (
    CHECKPOINT_NAME,
    NOVELTY_NAME,
    RUN_NAME,
    SYNTHETIC_NAME,
    TEMPERATURE_NAME,
    WEIGHTS_NAME,
    Folders,
    Weights,
    read_json,
    read_state,
    read_weights,
    save_weights,
    write_json,
)

# Of what is synthesised from the calibration digits: another than any run's own by default.
CALIBRATION_SEED = 1_000_001


def train(
    splits: Splits,
    config: TrainConfig,
    folders: Folders,
    *,
    device: torch.device,
    synthesis: SynthesisConfig | None = None,
    pictures: Sequence[Path] = (),
    initial: Path | None = None,
    teachers: Sequence[Path] = (),
    resume: bool = False,
    risk: float = RISK,
    progress: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Synthesise, fit, calibrate, export, evaluate; write every file of the run.

    Args:
        splits: the data.
        config: how to train.
        folders: where to write.
        device: where to train.
        synthesis: what to make beside the digits, where ``config`` gives that a share of each
            batch and there are no ``pictures``.
        pictures: files of ``synthetic_files.write_synthetic``, which are learned from instead.
        initial: weights (``mnist_classifier.pt`` of another run) to start from.
        teachers: weights to learn from, ``mnist_classifier.pt`` of other runs.
        resume: go on from the folder's checkpoint.
        risk: tolerated share of wrong readings among the accepted.
        progress: show a bar while fitting.
        report: told, in a line, what each step found.

    Returns:
        What run.json holds.

    Raises:
        InkdigitsError: see ``fit``, ``calibrate`` and ``load``.
    """
    started = time.perf_counter()
    first_weights = read_weights(initial, config.network) if initial else None
    plots.save(preview(splits.train, config), folders.figures / "augmentation_preview.png")
    diagram = architecture_diagram(config.network, trace_layers(config.network))
    plots.save(diagram, folders.figures / "model_architecture.png")
    made, composition = None, []
    if pictures:
        parts, composition = zip(*(read_synthetic(p, splits.train) for p in pictures), strict=True)
        made = concatenate(parts)
    elif synthesis is not None:
        path = folders.run / SYNTHETIC_NAME
        made = read_or_write(splits.train, synthesis, path, progress=progress, report=report)
        composition = [describe_synthesis(synthesis)]
    if made is not None:
        sheet = plots.contact_sheet(made.inks[:240].numpy(), "Synthesised, as the network sees it")
        plots.save(sheet, folders.figures / "synthetic_preview.png")
    result = fit(
        splits.train,
        splits.validation,
        config,
        device,
        synthetic=made,
        initial=first_weights,
        teachers=[network_of(read_weights(path)) for path in teachers],
        checkpoint=folders.run / CHECKPOINT_NAME,
        resume=resume,
        log_dir=folders.logs,
        progress=progress,
    )
    save_weights(result.weights, folders.run / WEIGHTS_NAME)
    history = [asdict(epoch) for epoch in result.history]
    figure = plots.training_history(history, result.kept_epoch)
    plots.save(figure, folders.figures / "training_history.png")
    kept = result.history[result.kept_epoch - 1]
    report(
        f"trained: epoch {kept.epoch} of {len(result.history)} is kept, validation loss "
        f"{kept.validation_loss:.4f}, accuracy {100 * kept.validation_accuracy:.2f} % "
        f"(n = {len(splits.validation):,})"
    )
    point = calibrate_weights(
        result.weights,
        splits,
        folders,
        synthetic=None if made is None else len(splits.calibration),
        risk=risk,
        report=report,
    )
    provenance = {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "split_seed": SPLIT_SEED,
            **{
                name: {"n": len(part), "sha256": part.digest()}
                for name, part in (
                    ("train", splits.train),
                    ("validation", splits.validation),
                    ("calibration", splits.calibration),
                    ("test", splits.test),
                )
            },
        },
        "config": {**asdict(config), "risk": risk},
        "synthesis": list(composition),
        "started_from": _origin(initial),
        "teachers": [_made_by(path) for path in teachers],
        **result.machines[-1],
        "trained_before_on": result.machines[:-1],
        "calibrated_on": {"hardware": hardware(), "versions": versions()},
    }
    provenance[PROVENANCE] = point.drift.to_dict()
    unmeasured = export(result.weights, point.temperature, point.policy, provenance)
    write_atomically(folders.run / ARTIFACT_NAME, unmeasured)
    reader = load(folders.run / ARTIFACT_NAME)
    scores, shares = evaluate_reader(reader, splits.test)
    draw_evaluation(scores, shares, splits.test, folders.figures)
    report(f"test, as encoded PNGs through the artifact:\n{scores.summary()}")
    metrics = _without_lists(scores)
    write_atomically(
        folders.run / ARTIFACT_NAME, with_provenance(unmeasured, {**provenance, "test": metrics})
    )
    run = {
        "model_version": reader.model_version,
        **provenance,
        "training_seconds": sum(epoch.seconds for epoch in result.history),
        # What came before an interruption isn't known.
        "run_seconds": None if resume else time.perf_counter() - started,
        "kept_epoch": result.kept_epoch,
        "history": history,
        **describe(point),
        "policy": asdict(point.policy),
        "test": scores.to_dict(),
    }
    write_json(folders.run / RUN_NAME, run)
    return run


def calibrate_weights(
    weights: Weights,
    splits: Splits,
    folders: Folders,
    *,
    synthetic: int | None,
    risk: float = RISK,
    report: Callable[[str], None] = lambda _: None,
) -> OperatingPoint:
    """Find the operating point; write it to the run's folder, and a figure.

    Args:
        weights: state_dict of a network.
        splits: the data; calibration and train are read.
        folders: where to write.
        synthetic: digits, and as many pictures without one, to synthesise from the calibration
            digits, and the risk is then to be kept on mildly corrupted ones too; None makes none,
            and everything is fitted to clean digits.
        risk: tolerated share of wrong readings among the accepted.
        report: told, in a line, what each step found.

    Raises:
        DataError: too few pictures to fit a temperature, or all are read right.
    """
    made = corrupted = None
    if synthetic is not None:
        composition = SynthesisConfig(
            digits=synthetic, others=synthetic, fonts="validation", seed=CALIBRATION_SEED
        )
        made = synthesise(splits.calibration, composition)
        corrupted = Digits(
            torch.from_numpy(
                corrupt_mildly(
                    splits.calibration.inks.numpy(), np.random.default_rng(CALIBRATION_SEED)
                )
            ),
            splits.calibration.labels,
        )
    point = find_operating_point(
        weights,
        splits.calibration,
        synthetic=made,
        corrupted=corrupted,
        risk=risk,
        report=report,
    )
    write_json(
        folders.run / TEMPERATURE_NAME,
        {"temperature": point.temperature, "policy": asdict(point.policy), **describe(point)},
    )
    write_json(
        folders.run / NOVELTY_NAME,
        {"method": METHOD, "parameters": NOVELTY_PARAMETERS["novelty_parameters"]},
    )
    labels = splits.calibration.labels.numpy()
    figure = plots.reliability_diagram(
        reliability_curve(probabilities(point.answers, 1.0), labels),
        reliability_curve(probabilities(point.answers, point.temperature), labels),
    )
    plots.save(figure, folders.figures / "reliability.png")
    return point


def export_run(run: Path) -> bytes:
    """The artifact of a run's folder, from its weights, temperature and provenance.

    Raises:
        TrainingError: a file of the run is missing or isn't what it should be.
    """
    weights = read_weights(run / WEIGHTS_NAME)
    saved = read_json(run / TEMPERATURE_NAME)
    try:
        temperature = float(saved["temperature"])
        policy = DecisionPolicy.from_dict(saved["policy"])
        margin = float(saved["second_look_margin"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TrainingError(f"{run / TEMPERATURE_NAME} can't be used: {error!r}") from error
    method = read_json(run / NOVELTY_NAME).get("method")
    if method != METHOD:
        raise TrainingError(
            f"{run / NOVELTY_NAME} scores novelty by {method!r}; this Inkdigits supports "
            f"{METHOD!r} alone. Run inkdigits calibrate again."
        )
    provenance = read_json(run / RUN_NAME) if (run / RUN_NAME).is_file() else {}
    drift = {PROVENANCE: saved[PROVENANCE]} if PROVENANCE in saved else {}
    made = (
        "created_at",
        "data",
        "config",
        "synthesis",
        "started_from",
        "teachers",
        "device",
        "autocast",
        "hardware",
        "versions",
        "trained_before_on",
        "calibrated_on",
    )
    return export(
        weights,
        temperature,
        policy,
        {name: provenance[name] for name in made if name in provenance} | drift,
        margin,
    )


def evaluate_reader(
    reader: DigitReader, digits: Digits
) -> tuple[Evaluation, npt.NDArray[np.float64]]:
    """Score a reader on labelled ink as a user would send it: as encoded PNGs.

    Returns:
        The scores, and the (N, 10) calibrated probabilities behind them.
    """
    pictures = [encode_png(ink) for ink in digits.inks.numpy()]
    shares = np.array([p.probabilities for p in reader.predict_batch(pictures)])
    return evaluate(shares, digits.labels.numpy()), shares


def draw_evaluation(
    scores: Evaluation, shares: npt.NDArray[np.float64], digits: Digits, figures: Path
) -> None:
    """Write the confusion matrix and the misread digits."""
    labels = digits.labels.numpy()
    plots.save(plots.confusion_matrix_figure(scores.confusion), figures / "confusion_matrix.png")
    plots.save(
        plots.misread_figure(
            digits.inks.numpy(), labels, shares.argmax(axis=1), shares.max(axis=1)
        ),
        figures / "misread.png",
    )


def preview(digits: Digits, config: TrainConfig, n: int = 8, copies: int = 8) -> Figure:
    """Contact sheet of augmentation: each row is a digit and what it is changed into."""
    originals = digits.inks[:n]
    batch = originals.repeat_interleave(copies, dim=0).unsqueeze(1).float() / 255.0
    generator = torch.Generator().manual_seed(config.seed)
    changed = augment(batch, config.augmentation, generator).squeeze(1)
    changed = (changed * 255.0).round().byte().view(len(originals), copies, 28, 28)
    return plots.augmentation_preview(originals.numpy(), changed.numpy())


def _origin(initial: Path | None) -> dict[str, Any] | None:
    """Where the first weights came from; None where they were random."""
    return None if initial is None else _made_by(initial)


def _made_by(path: Path) -> dict[str, Any]:
    """What run.json says of other weights: their digest, and how their own run made them."""
    origin: dict[str, Any] = {"sha256": weights_digest(read_state(path))}
    run = path.parent / RUN_NAME
    if run.is_file():
        earlier = read_json(run)
        kept = (
            *("config", "synthesis", "started_from", "device", "hardware", "kept_epoch"),
            *("training_seconds", "history"),
        )
        origin |= {name: earlier[name] for name in kept if name in earlier}
    return origin


def _without_lists(scores: Evaluation) -> dict[str, Any]:
    kept = ("n", "n_correct", "level", "accuracy", "nll", "brier", "ece", "ece_adaptive")
    values = scores.to_dict()
    return {name: values[name] for name in kept}
