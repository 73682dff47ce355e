from support.batches import PICTURE
from support.fakes import FakeReader

from inkdigits.batch import shards
from inkdigits.batch.shards import Shard, read_shard
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
