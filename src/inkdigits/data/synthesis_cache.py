"""Files of synthesised pictures, which several runs can train on."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from inkdigits.data.fonts import find_fonts
from inkdigits.data.mnist import Digits
from inkdigits.data.synthesis import Material, SynthesisConfig, synthesise
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import PREPROCESSING_VERSION
from inkdigits.model.artifact import write_atomically
from inkdigits.types import Report


def write_synthetic(
    material: Material,
    config: SynthesisConfig,
    path: Path,
    *,
    progress: bool = False,
    report: Report = lambda _: None,
) -> Digits:
    """Synthesise pictures, see ``synthesise``, and write them to ``path``, atomically.

    The file is a NumPy archive (.npz) of ``inks`` (N, 28, 28) uint8, ``labels`` (N,) int64, and
    ``key``, JSON of the configuration and the fonts, and of what they were made from. Until all is
    made, parts are kept in a folder beside it, so that an interrupted start is continued.
    ``report`` is called with a line that says what was made.

    >>> none = Material(Digits(torch.empty(0), torch.empty(0)))
    >>> write_synthetic(none, SynthesisConfig(), Path("none"))
    Traceback (most recent call last):
    inkdigits.errors.DataError: there are no digits to make others from
    """
    key = _key(config, material)
    parts = path.with_suffix(".parts")
    kept = parts / hashlib.sha256(key.encode()).hexdigest()[:12]
    with tqdm(disable=None if progress else True, unit="part", desc="synthesising") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = synthesise(material, config, kept=kept, report=show)
    buffer = io.BytesIO()
    arrays = {"inks": made.inks.numpy(), "labels": made.labels.numpy()}
    np.savez_compressed(buffer, key=np.array(key), **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())
    shutil.rmtree(parts, ignore_errors=True)
    counts = [len(part) for part in made.divided()]
    report("synthesised {:,} digits and {:,} pictures without one".format(*counts))
    return made


def read_synthetic(path: Path, material: Material) -> tuple[Digits, dict[str, Any]]:
    """Return what ``write_synthetic`` wrote, and how it was made, as JSON.

    Raises:
        TrainingError: missing, damaged, made of other digits or by another preprocessing.

    >>> none = Material(Digits(torch.empty(0), torch.empty(0)))
    >>> read_synthetic(Path("none.npz"), none)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    inkdigits.errors.TrainingError: there are no synthesised pictures at none.npz; ...
    """
    made, key = _read(path)
    if key[2] != _source(material):
        message = f"{path} was made of other digits or by another preprocessing; delete it"
        raise TrainingError(message)
    return made, _described(made, key)


def read_or_write(
    material: Material,
    config: SynthesisConfig,
    path: Path,
    *,
    progress: bool = False,
    report: Report = lambda _: None,
) -> tuple[Digits, dict[str, Any]]:
    """Return what an earlier start of the same run left at ``path``, or else write it.

    Arguments and errors are those of ``write_synthetic``, and results those of ``read_synthetic``.

    >>> import tempfile
    >>> given = Digits(torch.full((2, 28, 28), 255, dtype=torch.uint8), torch.tensor([1, 7]))
    >>> config = SynthesisConfig(digits=0, others=9, kinds=(("scribble", 1.0),))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     len(read_or_write(Material(given), config, Path(folder, "synthetic.npz"))[0]) > 5
    True
    """
    key = json.loads(_key(config, material))
    made, known = _read(path) if path.is_file() else (None, [])
    if made is None or known != key:
        made = write_synthetic(material, config, path, progress=progress, report=report)
    return made, _described(made, key)


def concatenate(parts: Sequence[Digits]) -> Digits:
    """Return the digits of all parts, in their order.

    >>> part = Digits(torch.zeros(2, 28, 28, dtype=torch.uint8), torch.tensor([1, 7]))
    >>> len(concatenate([part, part]))
    4
    """
    return Digits(torch.cat([p.inks for p in parts]), torch.cat([p.labels for p in parts]))


def _read(path: Path) -> tuple[Digits, list[Any]]:
    """Return the pictures and the key in a file."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            made = Digits(torch.from_numpy(saved["inks"]), torch.from_numpy(saved["labels"]))
            config, fonts, source = json.loads(str(saved["key"]))
            return made, [config, fonts, source]
    except FileNotFoundError as error:
        raise TrainingError(
            f"there are no synthesised pictures at {path}; inkdigits synthesise makes some"
        ) from error
    except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path} cannot be read as synthesised pictures: {error}. Labelled pictures of your "
            "own are named with --add; a damaged file of inkdigits synthesise can be made again"
        ) from error


def _described(made: Digits, key: list[Any]) -> dict[str, Any]:
    config, fonts, source = key
    return {**config, "fonts": fonts, **source, "sha256": made.digest()}


def _key(config: SynthesisConfig, material: Material) -> str:
    return json.dumps([asdict(config), _fonts(config), _source(material)])


def _fonts(config: SynthesisConfig) -> dict[str, Any]:
    """Return which installed fonts letters come from: how many files, and a digest of all."""
    content = hashlib.sha256()
    paths = sorted({f.path for f in (*find_fonts(config.fonts), *find_fonts(latin=False))})
    for path in paths:
        content.update(hashlib.sha256(path.read_bytes()).digest())
    return {"split": config.fonts, "files": len(paths), "sha256": content.hexdigest()}


def _source(material: Material) -> dict[str, Any]:
    return {
        "digits_sha256": material.digits.digest(),
        "hands": material.hands.sha256,
        "segmenter_sha256": material.segmenter_digest(),
        "preprocessing_version": PREPROCESSING_VERSION,
    }
