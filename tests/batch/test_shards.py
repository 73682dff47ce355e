from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support.batches import PICTURE
from support.fakes import FakeReader

from inkdigits.batch import shards
from inkdigits.batch.shards import Shard, read_shard
from inkdigits.batch.sources import open_sources
from inkdigits.errors import ImageError


class Watching(FakeReader):
    sizes: tuple[int, ...] = ()

    def predict_batch(self, pictures, *, on_error="raise"):
        self.sizes += (len(pictures),)
        return super().predict_batch(pictures, on_error=on_error)


def test_batches_are_bounded_in_bytes_and_errors_keep_their_place(monkeypatch):
    monkeypatch.setattr(shards, "BATCH_BYTES", 2 * len(PICTURE))
    shard = Shard(list("abcdef"), [*[PICTURE] * 3, ImageError("no"), *[PICTURE] * 2])
    reader = Watching()
    columns = read_shard(reader, shard)
    assert reader.sizes == (2, 2, 1)
    assert columns["error"] == [None, None, None, "no", None, None]
    assert columns["digit"] == [7, 7, 7, None, 7, 7]
    singly = [read_shard(reader, one) for one in shard.singly()]
    assert [one["digit"][0] for one in singly] == columns["digit"]


def test_rows_of_an_array_in_an_object_store_are_read_with_one_request(tmp_path):
    asked = []

    class Counting(pytest.importorskip("fsspec").get_filesystem_class("memory")):
        def cat_file(self, path, start=None, end=None, **others):
            asked.append(end - start)
            return super().cat_file(path, start, end, **others)

    rows = np.arange(9 * 5 * 4, dtype=np.uint8).reshape(9, 5, 4)
    np.save(tmp_path / "a.npy", rows)
    there = SimpleNamespace(fs=Counting(), path="/rows/a.npy")
    there.fs.pipe_file(there.path, (tmp_path / "a.npy").read_bytes())
    (shard,) = open_sources([tmp_path / "a.npy"])[0].shards()
    places = [replace(place, file=there) for place in shard.content]
    assert np.array_equal(np.stack(list(Shard(shard.names, places).pictures())), rows)
    assert asked == [rows.nbytes]
    del places[2:4]  # Rows after a gap are another range.
    assert np.array_equal(list(Shard(shard.names, places).pictures()), np.delete(rows, [2, 3], 0))
    assert asked[1:] == [40, 100]
