"""What the scripts beside this one share: options, percentiles and the file of results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkdigits.evaluation.environment import hardware, versions

REPOSITORY = Path(__file__).resolve().parent.parent


def options(description: str | None, *, of_model: bool = False) -> argparse.ArgumentParser:
    """Return a parser whose help is a script's docstring, with the option `--json`.

    Scripts of a model have `--data` and `--model` too.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    if of_model:
        parser.add_argument("--data", type=Path, default=Path("data"), help="folder of MNIST")
        parser.add_argument("--model", type=Path, help="artifact; default: the shipped one")
    return parser


def write(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write figures with the hardware and the versions that they were measured on, if asked to."""
    if path is not None:
        complete = {**content, "hardware": hardware(), "versions": versions()}
        path.write_text(json.dumps(complete, indent=2, ensure_ascii=False) + "\n")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of the values does not exceed."""
    return sorted(values)[int(share * (len(values) - 1))]


def fail(wrong: Sequence[object]) -> None:
    """End the script with status 1 and the first faults, if there are any."""
    if wrong:
        raise SystemExit("\n".join([f"{len(wrong)} faults", *map(str, wrong[:20])]))
