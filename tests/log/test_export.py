"""The log as CSV, Parquet and IDX."""

from __future__ import annotations

import base64
import csv
import io
import sys
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inkdigits.errors import BackendUnavailableError, QueryError
from inkdigits.log.queries import Filters
from inkdigits.log.record import Record
from inkdigits.log.store import Store
from inkdigits.types import NO_DIGIT

pytest_plugins = ["support.databases"]


def test_csv_has_every_figure_as_it_was(
    store: Store, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkdigits.log.store._EXPORTED_ROWS", 7)  # read in many batches
    file = io.BytesIO()
    assert store.export("csv", file) == len(records)
    assert not file.closed
    rows = list(csv.DictReader(io.StringIO(file.getvalue().decode())))
    assert [row["id"] for row in rows] == [record.id for record in records]
    for row, record in zip(rows, records, strict=True):
        assert datetime.fromisoformat(row["created_at"]) == record.created_at
        assert float(row["confidence"]) == record.confidence
        assert row["digit"] == ("" if record.digit is None else str(record.digit))
        assert row["true_digit"] == ("" if record.true_digit is None else str(record.true_digit))
        assert tuple(float(row[f"probability_{k}"]) for k in range(10)) == record.probabilities
        assert base64.b64decode(row["ink"]) == record.ink.tobytes()
    assert not {"owner", "picture"} & rows[0].keys()
    assert "mine" not in file.getvalue().decode()


def test_parquet_has_every_figure_with_its_type(store: Store, records: list[Record]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    filters = Filters(feedback="given")
    assert store.export("parquet", file, filters) == 80
    rows = parquet.read_table(io.BytesIO(file.getvalue())).to_pylist()
    meant = [record for record in records if record.true_digit is not None]
    assert [row["id"] for row in rows] == [record.id for record in meant]
    for row, record in zip(rows, meant, strict=True):
        assert row["created_at"] == record.created_at
        assert row["feedback_at"] == record.feedback_at
        assert (row["digit"], row["true_digit"]) == (record.digit, record.true_digit)
        assert row["confidence"] == record.confidence
        assert row["ink"] == record.ink.tobytes()
    assert not {"owner", "picture"} & rows[0].keys()


def test_an_empty_log_is_exported_with_its_columns(store: Store) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    text, table, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    assert store.export("csv", text) == 0
    assert text.getvalue().startswith(b"id,created_at,digit,")
    assert store.export("parquet", table) == 0
    assert "true_digit" in parquet.read_table(io.BytesIO(table.getvalue())).column_names
    assert store.export("idx", archive) == 0
    images, labels = read_idx(archive)
    assert images.shape == (0, 28, 28)
    assert labels.shape == (0,)


def test_parquet_without_pyarrow_says_what_to_install(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match=r"inkdigits\[export\]"):
        store.export("parquet", io.BytesIO())


class Pipe(io.BytesIO):
    """A file that cannot seek, as a pipe."""

    def seekable(self) -> bool:
        return False

    def tell(self, *_: object) -> int:
        raise io.UnsupportedOperation

    seek = tell


@pytest.mark.parametrize("form", ["csv", "parquet", "idx"])
def test_an_export_goes_through_a_pipe(store: Store, records: list[Record], form: Any) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    whole, piped = io.BytesIO(), Pipe()
    store.export(form, whole)
    store.export(form, piped)
    if form == "idx":
        assert np.array_equal(read_idx(piped)[0], read_idx(whole)[0])
    else:
        assert piped.getvalue() == whole.getvalue()


def test_an_unknown_format_is_rejected(store: Store) -> None:
    wrong: Any = "xlsx"
    with pytest.raises(QueryError, match="csv, parquet or idx"):
        store.export(wrong, io.BytesIO())


def read_idx(archive: io.BytesIO) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """MNIST's format in a few lines, after its description and not after the writer."""
    arrays = []
    with zipfile.ZipFile(io.BytesIO(archive.getvalue())) as files:
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
            data = files.read(name)
            assert data[:3] == b"\0\0\x08"
            shape = np.frombuffer(data, ">u4", data[3], 4)
            arrays.append(np.frombuffer(data, np.uint8, -1, 4 + 4 * data[3]).reshape(shape))
    return arrays[0], arrays[1]


def test_idx_has_the_corrected_digits_to_train_on(store: Store, records: list[Record]) -> None:
    file = io.BytesIO()
    meant = [r for r in records if r.true_digit is not None and r.true_digit != NO_DIGIT]
    assert store.export("idx", file) == len(meant)
    images, labels = read_idx(file)
    assert labels.tolist() == [record.true_digit for record in meant]
    assert images.tolist() == [record.ink.tolist() for record in meant]


def test_torchvision_reads_the_idx_as_its_mnist(
    store: Store, records: list[Record], tmp_path: Path
) -> None:
    mnist = pytest.importorskip("torchvision.datasets.mnist")
    file = io.BytesIO()
    count = store.export("idx", file)
    with zipfile.ZipFile(io.BytesIO(file.getvalue())) as files:
        files.extractall(tmp_path)
    images = mnist.read_image_file(str(tmp_path / "train-images-idx3-ubyte"))
    labels = mnist.read_label_file(str(tmp_path / "train-labels-idx1-ubyte"))
    assert images.shape == (count, 28, 28)
    assert labels.tolist() == read_idx(file)[1].tolist()
