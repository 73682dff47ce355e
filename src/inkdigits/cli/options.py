"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

MODEL_OPTION = click.option(
    "--model",
    "model_path",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="MODEL_PATH",
    help="Artifact to read with.  [default: the one that comes with Inkdigits; env: MODEL_PATH]",
)
READER_DEVICE_OPTION = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    help="Read with PyTorch on this device.  [default: ONNX Runtime on the CPU]",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON, for a program.")


def say(line: str) -> None:
    """To standard error, so that standard output holds only the result."""
    click.echo(line, err=True)
