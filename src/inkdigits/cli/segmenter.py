"""The command that trains the network that finds ink."""

from __future__ import annotations

from pathlib import Path

import click

from inkdigits.cli import options
from inkdigits.cli.options import needs_training_extra, option, resumable, say


@click.command("train-segmenter")
@options.DATA
@options.DOWNLOAD
@option(
    "--out", "Folder for ink_segmenter.onnx and the checkpoint.", options.FOLDER, "saved_models"
)
@option("--steps", "Batches to learn from.", options.COUNT, 60_000)
@options.SEED
@option("--resume", "Resume the run in the folder, also with more steps.", is_flag=True)
@needs_training_extra
def train_segmenter(
    data_root: Path, out: Path, steps: int, seed: int, *, download: bool, resume: bool
) -> None:
    """Train the network that finds ink, on pictures that are made while it learns.

    inkdigits export --segmenter puts what it writes into an artifact.

    60,000 steps take about two hours on two cores. A checkpoint is written every three minutes;
    after Ctrl-C the same command with --resume continues.
    """
    from inkdigits.data.fonts import find_fonts
    from inkdigits.data.mnist import load_splits
    from inkdigits.data.pictures.foreground import Hands
    from inkdigits.model.artifact import write_atomically
    from inkdigits.training.export import export_segmenter
    from inkdigits.training.segmenter.fit import SegmentConfig
    from inkdigits.training.segmenter.fit import train_segmenter as run_training

    digits = load_splits(data_root, download=download, report=say).train
    hands = Hands(digits.inks.numpy(), find_fonts("train"))
    config, checkpoint = SegmentConfig(steps=steps, seed=seed), out / "segmenter_checkpoint.pt"
    with resumable(out):
        weights = run_training(hands, config, checkpoint, resume=resume, report=say)
    write_atomically(out / "ink_segmenter.onnx", export_segmenter(weights))
    say(f"wrote {out / 'ink_segmenter.onnx'}")
