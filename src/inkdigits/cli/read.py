"""The command that reads numbers: one line of digits per picture, or per region of a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import click
import msgspec

from inkdigits.cli import options
from inkdigits.cli.options import answer, option
from inkdigits.cli.pictures import (
    bulk_options,
    end_with_failures,
    expand,
    opened,
    print_table,
    say_unmatched,
)
from inkdigits.errors import DataError, HintError, ImageError

if TYPE_CHECKING:
    from inkdigits.decision.hints import ReadOptions
    from inkdigits.decision.prediction import Box, NumberReading
    from inkdigits.reader import DigitReader

ReadRegion: TypeAlias = "tuple[str, Box | None, NumberReading | ImageError | HintError]"
"""A picture's name, the region of it, and what was read there."""

_BOX = ("left", "top", "width", "height")


class _Length(click.ParamType):  # type: ignore[type-arg]
    """Fewest and most digits, as 3-8, or 5 for both."""

    name = "N|MIN-MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        fewest, dash, most = value.partition("-")
        if not fewest.isdecimal() or (dash and not most.isdecimal()):
            self.fail(f"{value!r} must be a number or a range, such as 5 or 3-8", param, ctx)
        return int(fewest), int(most if dash else fewest)


@click.command()
@options.PICTURES
@options.MODEL
@option("--length", "Number of digits per number, such as 5 or 3-8.", _Length())
@option("--min", "Smallest possible value of the numbers.", click.IntRange(0))
@option("--max", "Largest possible value of the numbers.", click.IntRange(0))
@option("--check", "Type of the check digits in the numbers.", click.Choice(["luhn", "mod97"]))
@option(
    "--regions",
    "File with the regions to read, in pixels: a JSON list of [left, top, width, height], or a CSV "
    "file with these columns. The optional column source contains the name of the picture.",
    options.FILE,
)
@options.risk("numbers", otherwise="0.01")
@bulk_options
@options.JSON
def read(
    names: Sequence[str],
    model_path: Path | None,
    regions: Path | None,
    *,
    write: Callable[..., None] | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Read the number in each picture.

    SOURCE is a picture, a folder of pictures, an http or https URL, or - for standard input. A
    number is one line of digits. Commas, points, dashes and printed boxes are ignored. Check
    numbers with the decision "review" before you use them. The exit code is 1 if a picture cannot
    be read.

    --length, --min, --max and --check specify properties of the numbers. A number that violates one
    of them is not accepted.

    --out writes the numbers of many pictures to a table. "inkdigits predict --help" lists
    the supported sources.
    """
    from inkdigits.decision.hints import Hints
    from inkdigits.reader import load

    fields = None if regions is None else _regions_of(regions)
    # The other options have the names of the hints.
    hints: ReadOptions = {**given}  # type: ignore[typeddict-item]
    # An invalid hint ends the command; a region outside one picture is that picture's error.
    Hints.of(hints)
    if write is not None:
        write(names, as_json=as_json, model_path=model_path, hints=hints, regions=fields)
        return
    found = list(expand(names))
    say_unmatched((fields or {}).keys() - {*found, ""})
    reader = load(model_path)
    rows = [row for name in found for row in _rows(reader, name, fields, hints)]
    if not as_json:
        _print_table(rows, len(found))
        return
    numbers = [_content(*row) for row in rows]
    answer({"model_version": reader.model_version, "numbers": numbers}, "", as_json=True)
    end_with_failures(sum("error" in number for number in numbers), len(found))


def _regions_of(path: Path) -> dict[str, list[Box]]:
    """Return the regions by the picture's name, "" for all pictures."""
    if path.suffix.lower() in (".csv", ".jsonl", ".parquet"):
        from inkdigits.log.tables import read_rows

        found: dict[str, list[Box]] = {}
        try:
            for row in read_rows(path):
                left, top, width, height = (int(row[name]) for name in _BOX)
                found.setdefault(row.get("source") or "", []).append((left, top, width, height))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} must have the columns left, top, width and height: {error}"
            ) from error
        return found
    wanted = Annotated[list[tuple[int, int, int, int]], msgspec.Meta(min_length=1)]
    try:
        return {"": msgspec.json.decode(path.read_bytes(), type=wanted)}
    except msgspec.MsgspecError as error:
        raise click.UsageError(
            f"--regions {path} must contain a JSON list of at least one [left, top, width, height] "
            f"in whole pixels: {error}"
        ) from error


def _rows(
    reader: DigitReader, name: str, fields: dict[str, list[Box]] | None, hints: ReadOptions
) -> Iterator[ReadRegion]:
    regions = None if fields is None else fields.get(name, fields.get("", []))
    try:
        if regions is None:
            yield name, None, reader.read(opened(name), **hints)
        elif not regions:
            yield name, None, HintError("--regions has no region for this picture")
        else:
            readings = reader.read_regions(opened(name), regions, **hints)
            yield from ((name, *pair) for pair in zip(regions, readings, strict=True))
    except (ImageError, HintError) as error:
        yield name, None, error


def _content(
    name: str, region: Box | None, reading: NumberReading | ImageError | HintError
) -> dict[str, Any]:
    row: dict[str, Any] = {"file": name}
    if region is not None:
        row["region"] = list(region)
    if isinstance(reading, Exception):
        return row | {"error": str(reading)}
    return row | {
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


def _print_table(rows: Sequence[ReadRegion], pictures: int) -> None:
    from inkdigits.decision.prediction import percent

    names = [name if region is None else f"{name} {list(region)}" for name, region, _ in rows]
    wide = max(6, *(len(getattr(reading, "answer", None) or "") for *_, reading in rows))

    def line(reading: NumberReading) -> str:
        text, share = reading.answer, percent(reading.confidence)
        return f"{text or '-':>{wide}}  {share if text else '-':>10}  {reading.outcome}"

    head = f"{'number':>{wide}}  confidence  decision"
    print_table(names, head, (reading for *_, reading in rows), line, pictures)
