"""Files of synthesised pictures: made once, learned from by as many runs as one likes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from inkdigits.data.mnist import Digits
from inkdigits.data.synthesis import SynthesisConfig, synthesise
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import PREPROCESSING_VERSION
from inkdigits.model.artifact import write_atomically
from inkdigits.types import NO_DIGIT


def write_synthetic(
    digits: Digits,
    config: SynthesisConfig,
    path: Path,
    *,
    progress: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Digits:
    """What ``synthesise`` makes of ``digits``; written to ``path``, whole or not at all.

    Args:
        digits: see ``synthesise``.
        config: see ``synthesise``.
        path: a NumPy archive (.npz) of ``inks`` (N, 28, 28) uint8, ``labels`` (N,) int64, and
            ``key``, JSON of the configuration, the digits' digest and the preprocessing version.
        progress: show a bar on standard error.
        report: told, in a line, what was made.

    Raises:
        DataError: see ``synthesise``.
    """
    with tqdm(disable=not progress, unit="part", desc="synthesising", dynamic_ncols=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = synthesise(digits, config, report=show)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        key=np.array(_key(config, digits)),
        inks=made.inks.numpy(),
        labels=made.labels.numpy(),
    )
    write_atomically(path, buffer.getvalue())
    others = int((made.labels == NO_DIGIT).sum())
    report(f"synthesised {len(made) - others:,} digits and {others:,} pictures without one")
    return made


def read_synthetic(path: Path, digits: Digits) -> tuple[Digits, dict[str, Any]]:
    """What ``write_synthetic`` wrote, and how it was made: see ``described``.

    Raises:
        TrainingError: missing, damaged, made of other digits or by another preprocessing.
    """
    made, key = _read(path)
    try:
        config, *source = json.loads(key)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{path} can't be read: {error}; delete it") from error
    if source != _source(digits):
        raise TrainingError(
            f"{path} was made of other digits or by another preprocessing; delete it"
        )
    return made, {**config, "preprocessing_version": source[1]}


def described(config: SynthesisConfig) -> dict[str, Any]:
    """The configuration as JSON has it, and the version of the preprocessing that goes with it."""
    return {**asdict(config), "preprocessing_version": PREPROCESSING_VERSION}


def read_or_write(
    digits: Digits,
    config: SynthesisConfig,
    path: Path,
    *,
    progress: bool = False,
    report: Callable[[str], None] = lambda _: None,
) -> Digits:
    """What an earlier start of the same run left at ``path``, or else ``write_synthetic``'s."""
    if path.is_file():
        made, key = _read(path)
        if key == _key(config, digits):
            return made
    return write_synthetic(digits, config, path, progress=progress, report=report)


def together(parts: Sequence[Digits]) -> Digits:
    """All of them, in their order."""
    return Digits(torch.cat([p.inks for p in parts]), torch.cat([p.labels for p in parts]))


def _read(path: Path) -> tuple[Digits, str]:
    """The pictures and the key in a file."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            made = Digits(torch.from_numpy(saved["inks"]), torch.from_numpy(saved["labels"]))
            return made, str(saved["key"])
    except FileNotFoundError as error:
        raise TrainingError(
            f"there are no synthesised pictures at {path}; inkdigits synthesise makes some"
        ) from error
    except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} can't be read: {error}; delete it") from error


def _key(config: SynthesisConfig, digits: Digits) -> str:
    return json.dumps([asdict(config), *_source(digits)])


def _source(digits: Digits) -> list[Any]:
    return [digits.digest(), PREPROCESSING_VERSION]
