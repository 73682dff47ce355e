import pytest
from support.batches import PICTURE
from support.fakes import FakeReader

from inkdigits.batch import shards
from inkdigits.batch.shards import Extent, Shard, read_shard
from inkdigits.errors import ImageError


class Watching(FakeReader):
    sizes: tuple[int, ...] = ()

    def predict_batch(self, pictures, *, on_error="raise"):
        self.sizes += (len(pictures),)
        return super().predict_batch(pictures, on_error=on_error)


def test_pictures_are_read_in_batches_and_errors_keep_their_place(monkeypatch):
    monkeypatch.setattr(shards, "BATCH_PICTURES", 3)
    shard = Shard(list("abcdef"), [*[PICTURE] * 3, ImageError("no"), *[PICTURE] * 2])
    reader = Watching()
    columns = read_shard(reader, shard)
    assert reader.sizes == (3, 2)
    assert columns["error"] == [None, None, None, "no", None, None]
    assert columns["digit"] == [7, 7, 7, None, 7, 7]
    singles = [read_shard(reader, one)["digit"][0] for one in shard.singles()]
    assert singles == columns["digit"]


def test_pictures_of_a_store_are_fetched_at_once_and_a_lost_file_is_named(tmp_path):
    pytest.importorskip("fsspec")
    place = pytest.importorskip("upath").UPath("memory://digits")
    (place / "a.png").write_bytes(PICTURE)
    shard = Shard(list("abc"), [place / "a.png", place / "gone.png", b"c"])
    found, gone, other = shard.pictures()
    assert (found, other) == (PICTURE, b"c")
    assert str(gone) == "there is no memory://digits/gone.png"
    lost = Shard(["a"], [Extent(tmp_path / "a.tar", 0, 9)])
    with pytest.raises(FileNotFoundError, match=r"a\.tar"):
        list(lost.pictures())
