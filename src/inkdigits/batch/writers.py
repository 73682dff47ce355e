"""Readings of many pictures as one file: Parquet, CSV or JSON Lines, a row a picture.

Parquet has types. CSV has a header, RFC 4180's quoting and empty fields for None. JSON Lines has an
object a line. The columns are the same.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias

from inkdigits.errors import BackendUnavailableError, BatchError

Form: TypeAlias = Literal["csv", "jsonl", "parquet"]
Columns: TypeAlias = "dict[str, list[Any]]"
"""Values by column, a row for each picture."""

COLUMNS: Final = (
    *("source", "digit", "confidence", "decision", "reason", "novelty"),
    *("model_version", "error"),
)
FORMS: Final[dict[str, Form]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}

# Rows that are compressed together in Parquet, at least; they wait in memory for each other.
_PARQUET_ROWS: Final = 8192


def form_of(out: Path) -> Form:
    """The form that a file's name asks for.

    Raises:
        BatchError: none of them.
    """
    form = FORMS.get(out.suffix.lower())
    if form is None:
        raise BatchError(f"{out} must end in {', '.join(sorted(FORMS))}")
    return form


def check_available(form: Form) -> None:
    """Find out before any work whether the form can be written.

    Raises:
        BackendUnavailableError: "parquet" without pyarrow.
    """
    if form == "parquet":
        _pyarrow()


def write(form: Form, file: IO[bytes], parts: Iterable[Columns]) -> None:
    """Write parts one after another to a binary file; it stays open.

    Args:
        form: one of FORMS.
        file: open for writing in binary.
        parts: in the order of the file; one at a time is held.

    Raises:
        BackendUnavailableError: "parquet" without pyarrow.
    """
    if form == "parquet":
        _write_parquet(file, parts)
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    try:
        if form == "csv":
            rows = csv.writer(text)
            rows.writerow(COLUMNS)
            for part in parts:
                rows.writerows(_rows(part))
        else:
            for part in parts:
                text.writelines(
                    json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in _rows(part)
                )
    finally:
        text.detach()  # the file is the caller's to close


def _rows(part: Columns) -> Iterable[tuple[Any, ...]]:
    return zip(*(part[name] for name in COLUMNS), strict=True)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BackendUnavailableError(
            "Parquet needs pyarrow, which isn't installed; install inkdigits[export]"
        ) from error
    return pyarrow, pyarrow.parquet


def _write_parquet(file: IO[bytes], parts: Iterable[Columns]) -> None:
    pa, pq = _pyarrow()
    types = dict.fromkeys(COLUMNS, pa.string())
    types |= {"digit": pa.int8(), "confidence": pa.float64(), "novelty": pa.float64()}
    schema = pa.schema([(name, types[name]) for name in COLUMNS])
    waiting: list[Any] = []
    with pq.ParquetWriter(file, schema) as writer:
        for part in parts:
            waiting.append(pa.Table.from_pydict(part, schema=schema))
            if sum(len(table) for table in waiting) >= _PARQUET_ROWS:
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
