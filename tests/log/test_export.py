"""The log as CSV and Parquet."""

import base64
import io
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from inkdigits.errors import BackendUnavailableError, QueryError
from inkdigits.log.queries import Filters

pytest_plugins = ["support.databases"]


def exported(store, form, filters=None):
    file = io.BytesIO()
    return store.export(form, file, filters), file.getvalue()


def rows_of(form, data):
    """The rows of an export, with the types of Parquet."""
    if form == "parquet":
        return list(pq.read_table(io.BytesIO(data)).to_pylist())
    times = dict.fromkeys(("created_at", "feedback_at"), pa.timestamp("us", "UTC"))
    table = csv.read_csv(io.BytesIO(data), convert_options=csv.ConvertOptions(column_types=times))
    return [{**row, "ink": base64.b64decode(row["ink"])} for row in table.to_pylist()]


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("feedback", [None, "given"])
def test_a_table_has_every_figure_as_it_was(store, records, monkeypatch, form, feedback):
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


def test_an_empty_log_is_exported_with_its_columns(store):
    count, text = exported(store, "csv")
    assert count == 0
    assert text.startswith(b"id,created_at,digit,")
    count, table = exported(store, "parquet")
    assert count == 0
    assert "true_digit" in pq.read_table(io.BytesIO(table)).column_names


def test_parquet_without_pyarrow_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match=r"\[export\]"):
        exported(store, "parquet")


def test_an_unknown_format_is_rejected(store):
    with pytest.raises(QueryError, match="csv or parquet"):
        exported(store, "xlsx")
