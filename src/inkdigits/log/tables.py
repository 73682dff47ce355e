"""A table as one file: CSV, JSON Lines or Parquet, written some rows at a time.

CSV has a header, RFC 4180's quoting and empty fields for None. JSON Lines has one object per row.
In both, times are ISO 8601 and bytes are base64. Parquet has types. This module needs no SQL.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias

from inkdigits.errors import BackendUnavailableError, DataError

TableFormat: TypeAlias = Literal["csv", "jsonl", "parquet"]
Kind: TypeAlias = Literal["text", "int8", "float64", "time", "ink"]
Schema: TypeAlias = Mapping[str, Kind]
"""The kind of each column's values, by name; any may be None. Ink is 784 bytes per digit."""

Columns: TypeAlias = dict[str, list[Any]]
"""The values of some rows, by column."""

_FORMATS: Final[dict[str, TableFormat]] = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
# Parquet compresses rows in groups of at least this many, which are held until they are written.
_GROUP_ROWS: Final = 8192
# One column of a row group may declare this many bytes unpacked; so many are held at once.
_GROUP_BYTES: Final = 512 * 2**20


def format_of(name: str) -> TableFormat:
    """Return the format that the name of a table gives; one that ends in ``/`` is Parquet.

    DataError for any other, BackendUnavailableError if the library it needs is not installed.

    >>> format_of("a.CSV")
    'csv'
    """
    form = "parquet" if name.endswith("/") else _FORMATS.get(Path(name).suffix.lower())
    if form is None:
        raise DataError(
            f"the name of {name} must end in {', '.join(_FORMATS)}, or in / for a folder of "
            "Parquet files"
        )
    if form == "parquet":
        _pyarrow()
    return form


def write_table(
    form: TableFormat, file: IO[bytes], schema: Schema, parts: Iterable[Columns]
) -> int:
    """Write the parts of a table to a binary file, which stays open; return the number of rows.

    >>> file = io.BytesIO()
    >>> write_table("jsonl", file, {"digit": "int8"}, [{"digit": [7, None]}])
    2
    >>> print(file.getvalue().decode(), end="")
    {"digit": 7}
    {"digit": null}
    """
    if form == "parquet":
        pa, _ = _pyarrow()
        typed = _typed(schema)
        tables = (pa.Table.from_pydict(part, schema=typed) for part in parts)
        return _write_groups(file, typed, tables)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    count = 0
    try:
        writer = csv.writer(text)
        if form == "csv":
            writer.writerow(schema)
        for row in _rows(schema, parts):
            if form == "csv":
                writer.writerow(row)
            else:
                text.write(json.dumps(dict(zip(schema, row, strict=True))) + "\n")
            count += 1
    finally:
        text.detach()  # The file is the caller's to close.
    return count


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    r"""Yield the rows of a table, of the format of its suffix; DataError if it cannot be read.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("path,label\na.png,7\n")
    ...     file.flush()
    ...     list(read_rows(Path(file.name)))
    [{'path': 'a.png', 'label': '7'}]
    """
    form = path.suffix.lower()
    try:
        if form == ".parquet":
            yield from _parquet_rows(path)
            return
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, strict=True) if form == ".csv" else map(_object, file)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _object(line: str) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise DataError(f"{line[:20]!r} is no JSON object")
    return row


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    pa, pq = _pyarrow()
    try:
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            for batch in file.iter_batches(128):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def read_binary(path: Path, column: str) -> Iterator[Any]:
    """Yield a column of bytes, or its field ``bytes``, of a Parquet file; None where it is null.

    DataError if it cannot be read, or a row group declares more than 512 MiB of the column.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = write_table("parquet", file, {"image": "ink"}, [{"image": [b"abc", None]}])
    ...     file.flush()
    ...     list(read_binary(Path(file.name), "image"))
    [b'abc', None]
    """
    pa, pq = _pyarrow()
    try:
        with path.open("rb") as source, pq.ParquetFile(source, buffer_size=2**20) as file:
            leaf, rows = _leaf(path, file, column)
            for batch in file.iter_batches(rows, columns=[leaf], use_threads=False):
                found = batch.column(0)
                found = found.field(0) if pa.types.is_struct(found.type) else found
                yield from (value.as_py() for value in found)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _leaf(path: Path, file: Any, column: str) -> tuple[str, int]:
    """Return the Parquet name of a column of bytes, and how many rows can be held at once."""
    for i, leaf in enumerate(file.schema):
        # Lists and values of a fixed length can be far larger unpacked than they declare.
        is_bytes = leaf.physical_type == "BYTE_ARRAY" and not leaf.max_repetition_level
        if leaf.path not in (column, f"{column}.bytes") or not is_bytes:
            continue
        groups = map(file.metadata.row_group, range(file.num_row_groups))
        size = max((group.column(i).total_uncompressed_size for group in groups), default=0)
        if size > _GROUP_BYTES:
            raise DataError(
                f"{path} has a row group with {size:,} bytes in its column {column}; at most "
                f"{_GROUP_BYTES:,} are allowed. Write it with fewer rows per group"
            )
        # A dictionary may stand for its longest value in each row.
        return leaf.path, max(1, min(128, _GROUP_BYTES // max(1, size)))
    raise DataError(f"{path} has no column {column} of bytes, or of structs with a field bytes")


def _rows(schema: Schema, parts: Iterable[Columns]) -> Iterator[tuple[Any, ...]]:
    for part in parts:
        columns = [
            part[name] if kind not in ("time", "ink") else map(_as_text, part[name])
            for name, kind in schema.items()
        ]
        yield from zip(*columns, strict=True)


def _as_text(value: datetime | bytes | None) -> str | None:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return None if value is None else value.isoformat()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise BackendUnavailableError.without("export", "Parquet needs pyarrow") from error
    return pyarrow, pyarrow.parquet


def _typed(schema: Schema) -> Any:
    pa, _ = _pyarrow()
    types = {
        "text": pa.string(),
        "int8": pa.int8(),
        "float64": pa.float64(),
        "time": pa.timestamp("us", tz="UTC"),
        "ink": pa.binary(),
    }
    return pa.schema([(name, types[kind]) for name, kind in schema.items()])


def _write_groups(file: IO[bytes], typed: Any, tables: Iterable[Any]) -> int:
    pa, pq = _pyarrow()
    count, waiting = 0, typed.empty_table()
    with pq.ParquetWriter(file, typed) as writer:
        for table in tables:
            waiting = pa.concat_tables([waiting, table])
            if len(waiting) >= _GROUP_ROWS:
                writer.write_table(waiting)
                count, waiting = count + len(waiting), typed.empty_table()
        if len(waiting):
            writer.write_table(waiting)
    return count + len(waiting)
