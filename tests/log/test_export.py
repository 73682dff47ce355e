"""The log as CSV, Parquet and IDX."""

from __future__ import annotations

import base64
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from inkdigits.errors import BackendUnavailableError, QueryError
from inkdigits.log.queries import Filters
from inkdigits.log.record import Record
from inkdigits.log.store import Store
from inkdigits.types import NO_DIGIT

pytest_plugins = ["support.databases"]


def exported(store: Store, form: Any, filters: Filters | None = None) -> tuple[int, bytes]:
    file = io.BytesIO()
    return store.export(form, file, filters), file.getvalue()


def rows_of(form: str, data: bytes) -> list[dict[str, Any]]:
    """The rows of an export, with the types of Parquet."""
    if form == "parquet":
        return list(pq.read_table(io.BytesIO(data)).to_pylist())
    times = dict.fromkeys(("created_at", "feedback_at"), pa.timestamp("us", "UTC"))
    table = csv.read_csv(io.BytesIO(data), convert_options=csv.ConvertOptions(column_types=times))
    return [{**row, "ink": base64.b64decode(row["ink"])} for row in table.to_pylist()]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("feedback", [None, "given"])
def test_a_table_has_every_figure_as_it_was(
    store: Store,
    records: list[Record],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    feedback: Any,
) -> None:
    monkeypatch.setattr("inkdigits.log.store._EXPORTED_ROWS", 7)  # read in many batches
    meant = [record for record in records if feedback is None or record.true_digit is not None]
    count, data = exported(store, form, Filters(feedback=feedback))
    assert count == len(meant)
    rows = rows_of(form, data)
    for row, record in zip(rows, meant, strict=True):
        for name in ("id", "created_at", "confidence", "true_digit", "feedback_at"):
            assert row[name] == getattr(record, name)
        # What was rejected has no answer, but what it is closest to.
        assert row["digit"] == (None if record.decision == "reject" else record.digit)
        closest = record.digit if record.text is None else record.text
        assert str(row["closest"]) == str(closest)
        assert tuple(row[f"probability_{k}"] for k in range(10)) == record.probabilities
        assert row["ink"] == record.ink.tobytes()
    assert not {"owner", "picture"} & rows[0].keys()
    assert b"mine" not in data


def test_an_empty_log_is_exported_with_its_columns(store: Store) -> None:
    count, text = exported(store, "csv")
    assert count == 0
    assert text.startswith(b"id,created_at,digit,")
    count, table = exported(store, "parquet")
    assert count == 0
    assert "true_digit" in pq.read_table(io.BytesIO(table)).column_names
    count, archive = exported(store, "idx")
    assert count == 0
    sizes = (bytes(4), *(n.to_bytes(4, "big") for n in (28, 28)))
    assert list(files_in(archive).values()) == [
        b"\0\0\x08\x03" + b"".join(sizes),
        b"\0\0\x08\x01" + bytes(4),
    ]


def test_parquet_without_pyarrow_says_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match=r"\[export\]"):
        exported(store, "parquet")


class Pipe(io.BytesIO):
    """A file that cannot seek, as a pipe."""

    def seekable(self) -> bool:
        return False

    def tell(self, *_: object) -> int:
        raise io.UnsupportedOperation

    seek = tell


def files_in(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        return {name: files.read(name) for name in files.namelist()}


@pytest.mark.parametrize("form", ["csv", "parquet", "idx"])
def test_an_export_goes_through_a_pipe(store: Store, records: list[Record], form: Any) -> None:
    whole, piped = io.BytesIO(), Pipe()
    for file in (whole, piped):
        store.export(form, file)
        assert not file.closed
    if form == "idx":
        assert files_in(piped.getvalue()) == files_in(whole.getvalue())
    else:
        assert piped.getvalue() == whole.getvalue()


def test_an_unknown_format_is_rejected(store: Store) -> None:
    with pytest.raises(QueryError, match="csv, parquet or idx"):
        exported(store, "xlsx")


def test_torchvision_reads_the_corrected_digits_as_its_mnist(
    store: Store, records: list[Record], tmp_path: Path
) -> None:
    mnist = pytest.importorskip("torchvision.datasets.mnist")
    count, archive = exported(store, "idx")
    for name, data in files_in(archive).items():
        (tmp_path / name).write_bytes(data)
    images = mnist.read_image_file(str(tmp_path / "train-images-idx3-ubyte"))
    labels = mnist.read_label_file(str(tmp_path / "train-labels-idx1-ubyte"))
    meant = [r for r in records if r.true_digit is not None and r.true_digit != NO_DIGIT]
    assert count == len(meant)
    assert labels.tolist() == [record.true_digit for record in meant]
    assert images.tolist() == [record.ink.tolist() for record in meant]
