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

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import torch

from inkdigits.data.fonts import find_fonts
from inkdigits.data.labelled import read_labelled
from inkdigits.data.letters import scripts_of
from inkdigits.data.mnist import Splits
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.numbers import WrittenDigits
from inkdigits.data.synthesis import Material
from inkdigits.data.synthesis_cache import read_or_write, read_synthetic
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import PREPROCESSING_VERSION
from inkdigits.model.artifact import ARTIFACT_NAME, LINE_READER, SEGMENTER, write_atomically
from inkdigits.training.added import limited
from inkdigits.training.augmentation import AugmentationConfig
from inkdigits.training.checkpoint import flat
from inkdigits.training.config import Folders, RunConfig, TrainConfig
from inkdigits.training.loader import steps_per_epoch
from inkdigits.training.pipeline import Synthetic, train
from inkdigits.training.provenance import origin_of
from inkdigits.training.quantise import quantise_run
from inkdigits.training.run_folder import (
    CHECKPOINT_NAME,
    EXPORTS,
    NETWORK_FILES,
    PURPOSES,
    RUN_NAME,
    SYNTHETIC_NAME,
    digests_of,
    networks_of,
    read_json,
    read_network_file,
    read_weights,
    write_json,
)
from inkdigits.training.streams.lines import LineConfig, line_stream
from inkdigits.training.streams.loop import Stream, StreamConfig, train_on_stream
from inkdigits.training.streams.segmenter import SegmentConfig, ink_stream
from inkdigits.types import Json, Report

CLASSIC: Final = "MNISTClassifier"


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
    limited_splits = replace(splits, train=limited(splits.train, run.limit, run.train.seed))
    _check(limited_splits, run)
    run.folders.run.mkdir(parents=True, exist_ok=True)
    run = _find_networks(splits, run, plan, report)
    # Pictures are made from all digits, so that runs with different limits can share them.
    segmenter = read_network_file(SEGMENTER, run.segmenter)
    material = Material(splits.train, splits.train_hands, segmenter)
    stages = _Stages(limited_splits, material, run, device, report)
    described = stages.train(run, stages.synthesise())
    if plan.int8:
        described = stages.quantise(described)
    if plan.classic_epochs:
        stages.train_classic(plan.classic_epochs)
    return described


def _check(splits: Splits, run: RunConfig) -> None:
    """Raise what a run cannot do or read, before the minutes of the first stages."""
    if run.resume and not run.folders.run.is_dir():
        raise TrainingError(
            f"there is nothing to resume in {run.folders.run}; train without --resume"
        )
    if not read_labelled(run.added.sources, pattern=run.added.pattern):
        steps_per_epoch(len(splits.train), run.train)
    if run.initial is not None:
        read_weights(run.initial, run.train.network)


def _find_networks(splits: Splits, run: RunConfig, plan: Plan, report: Report) -> RunConfig:
    """Return the run with the networks that find ink and read lines, after training those planned.

    None is that of the shipped artifact.
    """
    digits, hands, seed = splits.train, splits.train_hands, run.train.seed
    sources = Sources(digits.inks.numpy(), digits.labels.numpy(), find_fonts("train"), hands)
    data = [digits.digest(), hands.sha256]
    if plan.segmenter_steps:
        config = SegmentConfig(steps=plan.segmenter_steps, seed=seed, data=_digest(data))
        path = _learn(run, report, SEGMENTER, ink_stream(sources, config.thin), config)
        run = replace(run, segmenter=path)
    else:
        run = replace(run, segmenter=_keep(run, SEGMENTER, run.segmenter))
    if plan.line_steps:
        segmenter = read_network_file(SEGMENTER, run.segmenter)
        data.append(digests_of({SEGMENTER: segmenter}))
        lines = LineConfig(steps=plan.line_steps, seed=seed, data=_digest(data))
        scripts = scripts_of("train")
        sources = replace(sources, script_fonts=find_fonts(latin=False), scripts=scripts)
        stream = line_stream(WrittenDigits.of(digits), sources, segmenter)
        return replace(run, line_reader=_learn(run, report, LINE_READER, stream, lines))
    return replace(run, line_reader=_keep(run, LINE_READER, run.line_reader))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _learn(run: RunConfig, report: Report, name: str, stream: Stream, config: StreamConfig) -> Path:
    """Train a network on a stream of examples, unless that is done, and return its file."""
    path = run.folders.run / NETWORK_FILES[name]
    known, checkpoint = path.with_suffix(".json"), path.with_suffix(".checkpoint.pt")
    # How many processes make examples changes which are made, but not what they are like.
    how: Json = {"config": {k: v for k, v in asdict(config).items() if k != "workers"}}
    if run.resume and path.is_file() and _agrees(how, known):
        report(f"the network that {PURPOSES[name]} is there: {path}")
        return path
    resume = run.resume and checkpoint.is_file()
    weights = train_on_stream(stream, config, checkpoint, resume=resume, report=report)
    write_atomically(path, EXPORTS[name](weights))
    write_json(known, how)
    return path


def _keep(run: RunConfig, name: str, given: Path | None) -> Path | None:
    """Copy a given network, or that of the run to start from, to the run's folder."""
    if given is not None:
        content = read_network_file(name, given)
    elif run.initial is None:
        return None
    elif run.initial.suffix == ".onnx":
        content = read_network_file(name, run.initial)
    else:
        described = run.initial.with_name(RUN_NAME)
        provenance = read_json(described) if described.is_file() else {}
        content = networks_of(run.initial.parent, provenance)[name]
    path = run.folders.run / NETWORK_FILES[name]
    write_atomically(path, content)
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
        self,
        splits: Splits,
        material: Material,
        run: RunConfig,
        device: torch.device,
        report: Report,
    ) -> None:
        self._run = run
        self._splits = splits
        self._material = material
        self._device = device
        self._report = report

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
            **digests_of({LINE_READER: read_network_file(LINE_READER, run.line_reader)}),
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
        for path in (given.segmenter, given.line_reader):
            if path is not None:
                write_atomically(folders.run / path.name, path.read_bytes())
        artifact = (folders.run / ARTIFACT_NAME).read_bytes()
        write_atomically(given.folders.run / f"{CLASSIC}.onnx", artifact)
