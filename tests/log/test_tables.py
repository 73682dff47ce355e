import csv
import io
import json
import re

import pyarrow.parquet as pq
import pytest
from support.batches import part

from inkdigits.batch.shards import SCHEMA
from inkdigits.errors import DataError
from inkdigits.log import tables


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_form_keeps_odd_names_and_numbers(form):
    columns = part('a, "b"\n.png', "é=1.png")
    columns |= {"digit": [3, None], "confidence": [0.1 + 0.2, None], "novelty": [-1.5, None]}
    file = io.BytesIO()
    tables.write_table(form, file, SCHEMA, iter([columns, part("last.png", error="why")]))
    text = file.getvalue()
    if form == "parquet":
        rows = pq.read_table(io.BytesIO(text)).to_pylist()
    elif form == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = [
            {k: v or None for k, v in row.items()}
            for row in csv.DictReader(io.StringIO(text.decode(), newline=""))
        ]
    assert [row["source"] for row in rows] == ['a, "b"\n.png', "é=1.png", "last.png"]
    assert float(rows[0]["confidence"]) == 0.1 + 0.2
    assert rows[1]["confidence"] is None
    assert rows[2]["error"] == "why"


def test_parquet_groups_rows_so_that_they_do_not_all_wait_in_memory(monkeypatch):
    monkeypatch.setattr(tables, "_GROUP_ROWS", 4)
    file = io.BytesIO()
    tables.write_table("parquet", file, SCHEMA, (part("a", "b", "c") for _ in range(5)))
    groups = pq.ParquetFile(io.BytesIO(file.getvalue()))
    assert [groups.metadata.row_group(i).num_rows for i in range(3)] == [6, 6, 3]


def test_parquet_row_group_of_too_many_bytes_is_rejected_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    with path.open("wb") as file:
        tables.write_table("parquet", file, {"image": "ink"}, [{"image": [bytes(784)] * 9}])
    assert list(tables.read_binary(path, "image")) == [bytes(784)] * 9
    monkeypatch.setattr(tables, "_GROUP_BYTES", 700)
    with pytest.raises(DataError, match=re.escape("at most 700 are allowed")):
        next(tables.read_binary(path, "image"))
