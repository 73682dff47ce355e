"""Every stage from data to the models that ship; what a stage has made is kept.

The stages are: the network that finds ink; the one that reads lines of digits; synthesised
pictures, whose ink the first one finds; the network that reads digits, calibrated, exported and
evaluated; the same in int8; and MNISTClassifier, the plain network that it is compared with. A run
that resumes skips each stage whose result was made with the
same settings from the same data, and continues one that was interrupted: the first two after their
last checkpoints, pictures after the last part that was made, and networks after their last complete
epoch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch

from inkdigits.data.fonts import find_fonts
from inkdigits.data.labelled import read_labelled
from inkdigits.data.letters import scripts_of
from inkdigits.data.mnist import Digits, Splits
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.numbers import WrittenDigits
from inkdigits.data.synthesis import Material
from inkdigits.data.synthesis_cache import read_or_write, read_synthetic
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import PREPROCESSING_VERSION
from inkdigits.model.artifact import ARTIFACT_NAME, write_atomically
from inkdigits.training.augmentation import AugmentationConfig
from inkdigits.training.checkpoint import flat
from inkdigits.training.config import Folders, RunConfig, TrainConfig
from inkdigits.training.export import export_line_reader, export_segmenter
from inkdigits.training.pipeline import Synthetic, material_of, train
from inkdigits.training.provenance import origin_of
from inkdigits.training.quantise import quantise_run
from inkdigits.training.run_folder import (
    CHECKPOINT_NAME,
    LINE_READER_NAME,
    RUN_NAME,
    SEGMENTER_NAME,
    SYNTHETIC_NAME,
    Weights,
    read_json,
    read_segmenter_file,
    read_weights,
    write_json,
)
from inkdigits.training.streams.lines import LineConfig, train_lines
from inkdigits.training.streams.loop import StreamConfig
from inkdigits.training.streams.segmenter import SegmentConfig, train_segmenter
from inkdigits.types import Json

CLASSIC: Final = "MNISTClassifier"

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which stages there are beside the network itself."""

    segmenter_steps: int = 50_000  # of the network that finds ink; 0 takes the run's ``segmenter``
    line_steps: int = 20_000  # of the network that reads lines; 0 takes the shipped one
    classic_epochs: int = 30  # of MNISTClassifier on clean digits; 0 leaves it out
    int8: bool = True  # whether to add the network in int8, if it answers as float32 does


def run_recipe(
    splits: Splits,
    run: RunConfig,
    plan: Plan,
    device: torch.device,
    report: Report = lambda _: None,
) -> Json:
    """Run all stages; return what run.json of the network that reads holds.

    ``report`` is called with each line of what a stage found. Results are in the run's folder, the
    plain network's in ``MNISTClassifier``.

    Raises:
        TrainingError: as ``pipeline.train``; nothing to resume.

    >>> folders = Folders(Path("none"), Path("figures"), Path("logs"))
    >>> run = RunConfig(TrainConfig(), folders, resume=True)
    >>> from inkdigits.data.mnist import Digits
    >>> none = Digits(torch.zeros(0, 28, 28, dtype=torch.uint8), torch.zeros(0))
    >>> run_recipe(Splits(none, none, none, none), run, Plan(), torch.device("cpu"))
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: there is nothing to resume in none; train without --resume
    """
    _check(run)
    run.folders.run.mkdir(parents=True, exist_ok=True)
    run = _find_networks(splits, run, plan, report)
    stages = _Stages(splits, run, device, report)
    described = stages.train(run, stages.synthesise())
    if plan.int8:
        described = stages.quantise(described)
    if plan.classic_epochs:
        stages.train_classic(plan.classic_epochs)
    return described


def _check(run: RunConfig) -> None:
    """Raise what a run cannot do or read, before the minutes of the first stages."""
    if run.resume and not run.folders.run.is_dir():
        raise TrainingError(
            f"there is nothing to resume in {run.folders.run}; train without --resume"
        )
    read_labelled(run.added.sources, pattern=run.added.pattern)
    if run.initial is not None:
        read_weights(run.initial, run.train.network)


def _find_networks(splits: Splits, run: RunConfig, plan: Plan, report: Report) -> RunConfig:
    """Return the run with the networks that find ink and read lines, after training those planned.

    None is that of the shipped artifact.
    """
    digits, seed = splits.train, run.train.seed
    learn = partial(_learn, run, digits, report)
    sources = Sources(
        digits.inks.numpy(), digits.labels.numpy(), find_fonts("train"), splits.train_hands
    )
    given = run.segmenter
    if given is None and run.initial is not None and run.initial.suffix == ".onnx":
        given = run.initial
    if plan.segmenter_steps:
        config = SegmentConfig(steps=plan.segmenter_steps, seed=seed)
        train = partial(train_segmenter, sources, config)
        given = learn("finds ink", SEGMENTER_NAME, config, train, export_segmenter)
    elif given is not None:
        given = _keep(given, run)
    run = replace(run, segmenter=given)
    if plan.line_steps:
        lines = LineConfig(steps=plan.line_steps, seed=seed)
        sources = replace(
            sources, script_fonts=find_fonts(latin=False), scripts=scripts_of("train")
        )
        segmenter = material_of(splits, run).segmenter
        train = partial(train_lines, WrittenDigits.of(digits), sources, segmenter, lines)
        path = learn("reads lines", LINE_READER_NAME, lines, train, export_line_reader)
        run = replace(run, line_reader=path)
    return run


def _learn(
    run: RunConfig,
    digits: Digits,
    report: Report,
    what: str,
    name: str,
    config: StreamConfig,
    train: Callable[..., Weights],
    export: Callable[[Weights], bytes],
) -> Path:
    """Train a network on a stream of examples, unless that is done, and return its file."""
    path = run.folders.run / name
    known, checkpoint = path.with_suffix(".json"), path.with_suffix(".checkpoint.pt")
    # How many processes make examples changes which are made, but not what they are like.
    settings = {k: v for k, v in asdict(config).items() if k != "workers"}
    how: Json = {"config": settings, "digits_sha256": digits.digest()}
    if run.resume and path.is_file() and _agrees(how, known):
        report(f"the network that {what} is there: {path}")
        return path
    resume = run.resume and checkpoint.is_file()
    write_atomically(path, export(train(checkpoint, resume=resume, report=report)))
    write_json(known, how)
    return path


def _keep(given: Path, run: RunConfig) -> Path:
    """Copy a network that finds ink to the run's folder."""
    path = run.folders.run / SEGMENTER_NAME
    if not (run.resume and given.resolve() == path.resolve()):
        write_atomically(path, read_segmenter_file(given))
    return path


def _agrees(how: Json, path: Path) -> bool:
    """Return whether a JSON file has all that is wanted, also inside of objects."""
    if not path.is_file():
        return False
    known = dict(flat(read_json(path)))
    return all(known.get(name) == value for name, value in flat(json.loads(json.dumps(how))))


class _Stages:
    """The stages after the network that finds ink."""

    def __init__(
        self, splits: Splits, run: RunConfig, device: torch.device, report: Report
    ) -> None:
        self._run = run
        self._splits = splits
        self._device = device
        self._report = report
        self._material: Material = material_of(splits, run)

    def synthesise(self) -> list[Synthetic]:
        """Make pictures, unless they are given or there."""
        run, material = self._run, self._material
        if run.synthesis is None or run.pictures:
            return [read_synthetic(path, material) for path in run.pictures]
        path = run.folders.run / SYNTHETIC_NAME
        how = {"progress": run.progress, "report": self._report}
        return [read_or_write(material, run.synthesis, path, **how)]  # type: ignore[arg-type]

    def train(self, run: RunConfig, synthetic: Sequence[Synthetic]) -> Json:
        """Train, calibrate, export and evaluate a network, unless that is done."""
        folder = run.folders.run
        how: Json = {
            "config": {**asdict(run.train), "risk": run.risk, "limit": run.limit},
            "data": {"train": {"sha256": self._splits.train.digest()}},
            "synthesis": [described for _, described in synthetic],
            "segmenter_sha256": self._material.segmenter_digest(),
            "preprocessing_version": PREPROCESSING_VERSION,
            "started_from": None if run.initial is None else origin_of(run.initial),
        }
        # With pictures of the user's own, which may have changed, the checkpoint decides.
        is_there = (folder / ARTIFACT_NAME).is_file() and not run.added.sources
        if run.resume and is_there and _agrees(how, folder / RUN_NAME):
            self._report(f"{run.train.network} is there: {folder}")
            return read_json(folder / RUN_NAME)
        resume = run.resume and (folder / CHECKPOINT_NAME).is_file()
        run = replace(run, resume=resume)
        return train(self._splits, run, self._device, synthetic, self._report)

    def quantise(self, described: Json) -> Json:
        """Add int8 to the artifact, unless that is done; or say why it stays in float32."""
        if "int8_changes" in described:
            return described
        try:
            quantise_run(self._run.folders, self._splits, self._report)
        except TrainingError as error:
            self._report(f"the artifact stays in float32: {error}")
        return read_json(self._run.folders.run / RUN_NAME)

    def train_classic(self, epochs: int) -> None:
        """Train MNISTClassifier on clean digits, and put its artifact beside the other one."""
        given = self._run
        config = TrainConfig(
            epochs=epochs,
            augmentation=AugmentationConfig(),
            network=CLASSIC,
            keep="last",
            seed=given.train.seed,
        )
        names = asdict(given.folders).values()
        folders = Folders(*(Path(folder, CLASSIC) for folder in names))
        plain = RunConfig(
            config,
            folders,
            device=given.device,
            segmenter=given.segmenter,
            line_reader=given.line_reader,
            resume=given.resume,
            limit=given.limit,
            risk=given.risk,
            progress=given.progress,
        )
        self.train(plain, ())
        if given.segmenter is not None:
            shutil.copy(given.segmenter, folders.run / SEGMENTER_NAME)
        shutil.copy(folders.run / ARTIFACT_NAME, given.folders.run / f"{CLASSIC}.onnx")
