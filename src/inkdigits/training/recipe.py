"""Every stage from data to the models that ship; what a stage has made is kept.

The stages are: synthesised pictures; teachers, which learn from them; the network that they teach,
calibrated, exported and evaluated; the same in int8; and MNISTClassifier, the plain network that it
is compared with. A run that resumes skips each stage whose result was made with the same settings
from the same pictures, and continues a stage that was interrupted after its last complete epoch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import torch

from inkdigits.data.labelled import read_labelled
from inkdigits.data.mnist import Digits, Splits
from inkdigits.data.synthesis_cache import concatenate, read_or_write, read_synthetic
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import PREPROCESSING_VERSION
from inkdigits.model.artifact import ARTIFACT_NAME
from inkdigits.training.augmentation import AugmentationConfig
from inkdigits.training.config import Folders, RunConfig, TrainConfig
from inkdigits.training.fit import FitInputs, fit
from inkdigits.training.pipeline import train
from inkdigits.training.provenance import origin_of
from inkdigits.training.quantise import quantise_run
from inkdigits.training.run_folder import (
    CHECKPOINT_NAME,
    RUN_NAME,
    SYNTHETIC_NAME,
    WEIGHTS_NAME,
    read_json,
    read_weights,
    save_weights,
    write_json,
)
from inkdigits.types import Json

CLASSIC: Final = "MNISTClassifier"
_TEACHER_SEED = 1_000

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which stages there are beside the network itself."""

    teachers: int = 2  # networks to train first, from which it learns beside the labels
    teacher_epochs: int = 16
    classic_epochs: int = 30  # of MNISTClassifier on clean digits; 0 leaves it out
    int8: bool = True  # whether to add the network in int8, if it answers as float32 does


def run_recipe(
    splits: Splits,
    run: RunConfig,
    plan: Plan,
    device: torch.device,
    report: Report = lambda _: None,
) -> Json:
    """Run all stages; return what run.json of the taught network holds.

    ``report`` is called with each line of what a stage found. Results are in the run's folder:
    teachers in ``teacher1`` and so on, the plain network in ``MNISTClassifier``.

    Raises:
        TrainingError: as ``pipeline.train``; teachers without a share in the loss; nothing to
            resume.

    >>> folders = Folders(Path("saved_models"), Path("figures"), Path("logs"))
    >>> run = RunConfig(TrainConfig(), folders)
    >>> none = Digits(torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0))
    >>> run_recipe(Splits(none, none, none, none), run, Plan(), torch.device("cpu"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: 2 teachers need a share in the loss; raise --distillation
    """
    _check(run, plan)
    pictures = run.pictures
    if run.synthesis is not None and not pictures:
        pictures = (run.folders.run / SYNTHETIC_NAME,)
        read_or_write(
            splits.train,
            run.synthesis,
            pictures[0],
            splits.train_hands,
            progress=run.progress,
            report=report,
        )
    taught = replace(run, pictures=pictures)
    if plan.teachers:
        made, synthesis = _read(splits, pictures)
        teachers = tuple(
            _teacher(number, splits, made, synthesis, taught, plan, device, report)
            for number in range(1, plan.teachers + 1)
        )
        taught = replace(taught, teachers=(*run.teachers, *teachers))
    described = _trained(splits, taught, device, report)
    if plan.int8:
        described = _quantised(splits, taught.folders, described, report)
    if plan.classic_epochs:
        _classic(splits, run, plan.classic_epochs, device, report)
    return described


def _check(run: RunConfig, plan: Plan) -> None:
    """Raise what a run cannot do or read, before the minutes of synthesis."""
    if plan.teachers and not run.train.distillation:
        raise TrainingError(
            f"{plan.teachers} teachers need a share in the loss; raise --distillation"
        )
    kept = (CHECKPOINT_NAME, SYNTHETIC_NAME, "teacher1")
    if run.resume and not any((run.folders.run / name).exists() for name in kept):
        raise TrainingError(
            f"there is nothing to resume in {run.folders.run}; train without --resume"
        )
    read_labelled(run.added.sources, pattern=run.added.pattern)
    if run.initial is not None:
        read_weights(run.initial, run.train.network)


def _read(splits: Splits, pictures: Sequence[Path]) -> tuple[Digits | None, list[Json]]:
    """Return the pictures of all files, and how each was made."""
    if not pictures:
        return None, []
    read = [read_synthetic(path, splits.train, splits.train_hands) for path in pictures]
    return concatenate([made for made, _ in read]), [how for _, how in read]


def _teacher(
    number: int,
    splits: Splits,
    made: Digits | None,
    synthesis: list[Json],
    run: RunConfig,
    plan: Plan,
    device: torch.device,
    report: Report,
) -> Path:
    """Train a teacher, unless it is there; return where its weights are."""
    folder = run.folders.run / f"teacher{number}"
    weights, checkpoint = folder / WEIGHTS_NAME, folder / CHECKPOINT_NAME
    config = replace(
        run.train,
        network="TeacherNet",
        epochs=plan.teacher_epochs,
        dropout=None,
        distillation=0.0,
        seed=run.train.seed + _TEACHER_SEED + number,
    )
    how: Json = {"config": asdict(config), "synthesis": synthesis}
    if run.resume and weights.is_file() and _made(folder, how):
        report(f"teacher {number} is there: {folder}")
        return weights
    result = fit(
        FitInputs(splits.train, splits.validation, made),
        config,
        device,
        checkpoint=checkpoint,
        resume=run.resume and checkpoint.is_file(),
        log_dir=run.folders.logs / folder.name,
        progress=run.progress,
    )
    save_weights(result.weights, weights)
    kept = result.history[result.kept_epoch - 1]
    write_json(
        folder / RUN_NAME,
        {
            **how,
            **result.machines[-1],
            "kept_epoch": result.kept_epoch,
            "training_seconds": sum(epoch.seconds for epoch in result.history),
            "history": [asdict(epoch) for epoch in result.history],
        },
    )
    report(
        f"teacher {number}: epoch {kept.epoch} is kept, validation loss "
        f"{kept.validation_loss:.4f}, accuracy {100 * kept.validation_accuracy:.2f} %"
    )
    return weights


def _made(folder: Path, how: Json) -> bool:
    """Return whether the run in a folder was finished with these settings and pictures."""
    if not (folder / RUN_NAME).is_file():
        return False
    return _agrees(json.loads(json.dumps(how)), read_json(folder / RUN_NAME))


def _agrees(wanted: Json, known: Json) -> bool:
    """Return whether what is known has all that is wanted, also inside of objects."""
    return all(
        _agrees(value, known.get(name, {})) if isinstance(value, dict) else known.get(name) == value
        for name, value in wanted.items()
    )


def _trained(splits: Splits, run: RunConfig, device: torch.device, report: Report) -> Json:
    """Train, calibrate, export and evaluate a network, unless that is done."""
    folder = run.folders.run
    _, synthesis = _read(splits, run.pictures)
    how: Json = {
        "config": {**asdict(run.train), "risk": run.risk, "limit": run.limit},
        "synthesis": synthesis,
        "preprocessing_version": PREPROCESSING_VERSION,
        "started_from": None if run.initial is None else origin_of(run.initial),
        "added": None,
    }
    if run.added.sources:
        how["added"] = {"sources": sorted(run.added.sources)}
    if run.resume and (folder / ARTIFACT_NAME).is_file() and _made(folder, how):
        report(f"{run.train.network} is there: {folder}")
        return read_json(folder / RUN_NAME)
    resume = run.resume and (folder / CHECKPOINT_NAME).is_file()
    return train(splits, replace(run, resume=resume), device, report)


def _quantised(splits: Splits, folders: Folders, described: Json, report: Report) -> Json:
    """Add int8 to the artifact, unless that is done; or say why it stays in float32."""
    if "int8_changes" in described:
        return described
    try:
        quantise_run(folders, splits, report)
    except TrainingError as error:
        report(f"the artifact stays in float32: {error}")
    return read_json(folders.run / RUN_NAME)


def _classic(
    splits: Splits, run: RunConfig, epochs: int, device: torch.device, report: Report
) -> None:
    """Train MNISTClassifier on clean digits, and put its artifact beside the other one."""
    config = TrainConfig(
        epochs=epochs,
        augmentation=AugmentationConfig(),
        network=CLASSIC,
        keep="last",
        seed=run.train.seed,
    )
    folders = Folders(
        run.folders.run / CLASSIC, run.folders.figures / CLASSIC, run.folders.logs / CLASSIC
    )
    plain = RunConfig(
        config,
        folders,
        device=run.device,
        resume=run.resume,
        risk=run.risk,
        progress=run.progress,
    )
    _trained(splits, plain, device, report)
    shutil.copy(folders.run / ARTIFACT_NAME, run.folders.run / f"{CLASSIC}.onnx")
