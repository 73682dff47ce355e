"""The command that makes pictures to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from inkdigits.cli import options
from inkdigits.cli.options import option, say

if TYPE_CHECKING:
    from inkdigits.data.synthesis import SynthesisConfig

SYNTHETIC: Final = 180_000
"""Pictures that are made by default."""


@click.command(short_help="Make synthetic training pictures.")
@options.DATA
@options.DOWNLOAD
@option(
    "--out",
    'File to write; "inkdigits train --pictures" reads this file.',
    options.FILE,
    default="saved_models/synthetic.npz",
)
@option(
    "--synthetic",
    "Approximate number of pictures. Two thirds of the pictures show digits.",
    options.COUNT,
    default=SYNTHETIC,
)
@option("--segmenter", "Network that finds ink.  [default: the shipped network]", options.FILE)
@options.SEED
def synthesise(
    data_root: Path, out: Path, synthetic: int, segmenter: Path | None, seed: int, *, download: bool
) -> None:
    """Make synthetic training pictures from MNIST's digits and the installed fonts.

    "inkdigits train" makes synthetic pictures if you do not specify --pictures. With --pictures,
    several training runs can use one file.
    """
    from inkdigits.data.mnist import load_splits
    from inkdigits.data.synthesis import Material
    from inkdigits.data.synthesis_cache import write_synthetic
    from inkdigits.model.artifact import SEGMENTER
    from inkdigits.training.run_folder import read_network_file

    splits = load_splits(data_root, download=download, report=say)
    found = read_network_file(SEGMENTER, segmenter)
    material = Material(splits.train, splits.train_hands, found)
    write_synthetic(material, composition(synthetic, seed), out, progress=True, report=say)
    say(f"wrote {out}")


def composition(pictures: int, seed: int) -> SynthesisConfig:
    """Return what about as many pictures are of: two thirds digits, one third none.

    >>> composition(90, seed=0).digits
    60
    """
    from inkdigits.data.synthesis import SynthesisConfig

    return SynthesisConfig(digits=pictures - pictures // 3, others=pictures // 3, seed=seed)
