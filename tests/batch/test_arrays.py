import gzip
import re
import struct

import numpy as np
import pytest
from support.batches import SMALL, everything, names
from support.idx import write_idx

from inkdigits.batch import sources
from inkdigits.batch.sources import open_sources
from inkdigits.errors import DataError


@pytest.mark.parametrize("shape", [(5, 9, 7), (5, 9, 7, 1), (5, 9, 7, 3), (5, 9, 7, 4)])
def test_numpy_array_gives_its_pictures(shape, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHARD_BYTES", 2 * 9 * 7 * (shape[3:] or (1,))[0])
    array = (np.arange(np.prod(shape)).reshape(shape) % 256).astype(np.uint8)
    np.save(tmp_path / "a.npy", array)
    found = everything(tmp_path / "a.npy")
    assert names(found, tmp_path / "a.npy") == list("01234")
    assert np.array_equal(np.stack([picture for _, picture in found]), array)
    assert len(list(open_sources([tmp_path / "a.npy"])[0].shards())) == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 28, 28), np.float32), "holds float32; pictures are uint8"),
        (np.zeros((28, 28), np.uint8), "has the shape (28, 28)"),
        (np.zeros((3, 28, 28, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((3, 0, 28), np.uint8), "0 x 28 pixels"),
        (np.zeros((1, 101, 100), np.uint8), "101 x 100 pixels"),
        (np.zeros((3, 28, 28), np.uint8, "F"), "save it with numpy.ascontiguousarray"),
        (np.array([None]), "holds object; pictures are uint8"),
    ],
)
def test_numpy_array_of_another_kind_is_rejected(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=re.escape(message)):
        open_sources([tmp_path / "a.npy"], SMALL)


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "a.idx3-ubyte", "a.idx"])
def test_idx_gives_its_pictures_packed_or_not(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHARD_PICTURES", 4)
    array = (np.arange(10 * 9 * 7) % 256).astype(np.uint8).reshape(10, 9, 7)
    write_idx(tmp_path / name, array)
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    for path in (tmp_path / name, tmp_path / f"{name}.gz"):
        found = everything(path)
        assert names(found, path) == list("0123456789")
        assert np.array_equal(np.stack([picture for _, picture in found]), array)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (struct.pack(">HBBIII", 0, 13, 3, 1, 2, 2), "type 13 and 3 dimensions"),
        (struct.pack(">HBBI", 0, 8, 1, 4), "type 8 and 1 dimensions"),
        (struct.pack(">HBBIII", 1, 8, 3, 1, 2, 2), "is not an IDX file"),
        (struct.pack(">HBBI", 0, 8, 3, 4), "header is truncated"),
        (struct.pack(">HBBIII", 0, 8, 3, 1, 2**31, 2**31), "at most 10,000 are allowed"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_a_wrong_header_is_rejected(header, message, packed, tmp_path):
    path = tmp_path / ("a.idx.gz" if packed else "a.idx")
    content = header + (bytes(4) if len(header) == 16 else b"")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=message):
        open_sources([path], SMALL)


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
@pytest.mark.parametrize(
    ("size", "number", "message"),
    [(53, 3, "ends after 3 of 5 pictures"), (96, 5, "more than the 5 pictures")],
)
def test_idx_of_another_length_than_its_header_says(name, size, number, message, tmp_path):
    content = struct.pack(">HBBIII", 0, 8, 3, 5, 4, 4) + bytes(size)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    *whole, (_, error) = everything(tmp_path / name)
    assert (len(whole), message in str(error)) == (number, True)


def test_truncated_numpy_array_gives_what_is_there_and_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 9, 7), np.uint8))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-70])
    *whole, (_, error) = everything(tmp_path / "a.npy")
    assert len(whole) == 2
    assert "a.npy" in str(error)


def test_array_that_shrinks_after_it_was_opened_is_told_of(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 9, 7), np.uint8))
    (source,) = open_sources([tmp_path / "a.npy"])
    (shard,) = source.shards()
    np.save(tmp_path / "a.npy", np.zeros((1, 9, 7), np.uint8))
    with pytest.raises(DataError, match="was changed during the run"):
        list(shard.pictures())
