"""The file that a batch run writes: one row per picture, as Parquet, CSV or JSON Lines."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from inkdigits.errors import BatchError
from inkdigits.log.tables import Schema, TableFormat

SCHEMA: Final[Schema] = {
    "source": "text",
    "digit": "int8",
    "confidence": "float64",
    "decision": "text",
    "reason": "text",
    "novelty": "float64",
    "model_version": "text",
    "error": "text",
}
"""The columns; a picture that cannot be read has a source, a model version and an error."""

_FORMATS: Final[dict[str, TableFormat]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}


def format_of(out: Path) -> TableFormat:
    """Return the format that a file's name asks for.

    Raises:
        BatchError: another ending than .csv, .jsonl or .parquet.

    >>> format_of(Path("readings.parquet"))
    'parquet'
    """
    form = _FORMATS.get(out.suffix.lower())
    if form is None:
        raise BatchError(f"the name of {out} must end in {', '.join(_FORMATS)}")
    return form
