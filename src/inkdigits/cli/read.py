"""The command that reads numbers: one line of digits per picture, or per region of a page."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli import options
from inkdigits.errors import ImageError

if TYPE_CHECKING:
    from inkdigits.decision.hints import ReadOptions
    from inkdigits.decision.prediction import Box, NumberReading
    from inkdigits.reader import DigitReader

_COLUMNS = ("file", "region", "text", "confidence", "decision", "reason", "error")


@click.command(short_help="Read the number in each picture.")
@click.argument(
    "paths", nargs=-1, required=True, metavar="SOURCE…", type=click.Path(path_type=Path)
)
@options.MODEL
@click.option("--length", metavar="N|MIN-MAX", help="How many digits it has, such as 5 or 3-8.")
@click.option("--min", "smallest", type=click.IntRange(0), help="The smallest value it has.")
@click.option("--max", "largest", type=click.IntRange(0), help="The largest value it has.")
@click.option(
    "--check", type=click.Choice(["luhn", "mod97"]), help="The check digits that it ends in."
)
@click.option(
    "--regions",
    type=options.FILE,
    help="JSON file with a list of [left, top, width, height], in pixels: the fields of each page.",
)
@click.option(
    "--risk",
    type=options.SHARE,
    help="Tolerated share of wrong numbers among the accepted.  [default: 0.01]",
)
@options.JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
def read(
    paths: Sequence[Path],
    model_path: Path | None,
    length: str | None,
    smallest: int | None,
    largest: int | None,
    check: Any,
    regions: Path | None,
    risk: float | None,
    *,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Read the number in each picture; a folder stands for the pictures in it.

    A number is one line of digits. Commas, points, dashes and printed boxes are left out. Check a
    number whose line says "review" before you use it. The exit code is 1 if a file cannot be read.

    Say what you know of the numbers by --length, --min, --max and --check: what does not hold is
    not accepted.
    """
    from inkdigits.cli.predict import expand
    from inkdigits.reader import load

    if as_json and as_csv:
        raise click.UsageError("choose --json or --csv")
    fields = None if regions is None else _regions_of(regions)
    hints: ReadOptions = {
        "length": _length_of(length), "min": smallest, "max": largest, "check": check, "risk": risk
    }  # fmt: skip
    files = list(expand(paths))
    reader = load(model_path)
    rows = [row for path in files for row in _rows(reader, path, fields, hints)]
    if as_json:
        click.echo(json.dumps({"model_version": reader.model_version, "numbers": rows}))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, _COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(rows)
    failed = sum("error" in row for row in rows)
    if failed:
        raise click.ClickException(f"{failed} of {len(files)} files cannot be read")


def _length_of(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    fewest, dash, most = text.partition("-")
    if not fewest.isdecimal() or (dash and not most.isdecimal()):
        raise click.UsageError(f"--length is {text!r}; it must be like 5 or 3-8")
    return int(fewest), int(most if dash else fewest)


def _regions_of(path: Path) -> list[Box]:
    try:
        found = json.loads(path.read_bytes()) or [()]
        return [(int(x), int(y), int(width), int(height)) for x, y, width, height in found]
    except (OSError, ValueError, TypeError) as error:
        raise click.UsageError(
            f"--regions {path} must hold a JSON list of [left, top, width, height]: {error}"
        ) from error


def _rows(
    reader: DigitReader, path: Path, regions: list[Box] | None, hints: ReadOptions
) -> Iterator[dict[str, Any]]:
    try:
        if regions is None:
            yield {"file": str(path), **_row(reader.read(path, **hints))}
            return
        found = reader.read_regions(path, regions, **hints)
    except ImageError as error:
        yield {"file": str(path), "error": str(error)}
        return
    for region, reading in zip(regions, found, strict=True):
        yield {"file": str(path), "region": list(region), **_row(reading)}


def _row(reading: NumberReading) -> dict[str, Any]:
    return {
        "text": reading.text,
        "confidence": reading.confidence,
        "decision": reading.decision,
        "reason": reading.reason,
        "digits": [
            {"digit": one.digit, "confidence": one.confidence, "box": list(one.box),
             "decision": one.decision}
            for one in reading.digits
        ],
        "alternatives": [{"text": t, "confidence": share} for t, share in reading.alternatives],
        "checks": [{"name": check.name, "ok": check.ok} for check in reading.checks],
    }  # fmt: skip


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    names = [f"{row['file']} {row['region']}" if "region" in row else row["file"] for row in rows]
    width = max(len(name) for name in names)
    wide = max(6, *(len(row.get("text", "")) for row in rows))
    click.echo(f"{'file':<{width}}  {'number':>{wide}}  confidence  decision")
    for name, row in zip(names, rows, strict=True):
        if "error" in row:
            click.echo(f"{name:<{width}}  error: {row['error']}")
            continue
        # Rounded down, because no reading is certain enough for "100.00 %".
        percent = int(row["confidence"] * 10_000) / 100
        reason = f" ({row['reason']})" if row["reason"] else ""
        text = row["text"] or "-"
        line = f"{text:>{wide}}  {percent:>8.2f} %  {row['decision']}{reason}"
        click.echo(f"{name:<{width}}  {line}")
