import gzip
import json
import os

import numpy as np
import pytest
from support.batches import PICTURE, everything, packed, tarred, zipped
from support.idx import write_idx

from inkdigits.batch import sources
from inkdigits.batch.sources import open_sources
from inkdigits.errors import DataError


@pytest.mark.parametrize("empty", ["folder", "empty.zip", "empty.tar", "empty.npy", "empty.idx"])
def test_source_without_pictures_is_an_error_in_its_place(empty, tmp_path):
    path = tmp_path / empty
    if empty == "folder":
        path.mkdir()
    elif empty == "empty.npy":
        np.save(path, np.zeros((0, 28, 28), np.uint8))
    elif empty == "empty.idx":
        write_idx(path, np.zeros((0, 28, 28), np.uint8))
    else:
        (zipped if path.suffix == ".zip" else tarred)(path, {"notes.txt": b"x"})
    ((name, error),) = everything(path)
    assert (name, "holds no pictures" in str(error)) == (str(path), True)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.npy", "a.idx", "a.idx.gz"])
@pytest.mark.parametrize("content", [b"", b"not what the name says", bytes(3000), None])
def test_source_that_is_not_what_its_name_says_is_found_before_any_work(name, content, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    if ".tar" in name and content == bytes(3000):  # nothing but an end: an empty archive
        assert "holds no pictures" in str(everything(path)[0][1])
        return
    with pytest.raises(DataError, match=name):
        open_sources([path])


@pytest.mark.parametrize("name", ["a.idx.gz", "a.tar.gz"])
def test_wrong_checksum_of_what_is_compressed_as_a_whole_is_told_of(name, tmp_path):
    path = tmp_path / name
    if name == "a.idx.gz":
        write_idx(path, np.zeros((5, 4, 4), np.uint8))
        path.write_bytes(gzip.compress(path.read_bytes()))
    else:
        tarred(path, {f"{i}.png": PICTURE for i in range(5)}, "w:gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    *whole, (source, error) = everything(path)
    assert (len(whole), source) == (5, str(path))
    assert "CRC" in str(error)


def test_random_damage_of_an_archive_or_array_ends_in_an_error_that_is_ours(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [tmp_path / "a.npy", tmp_path / "a.idx.gz"]
    np.save(arrays[0], np.zeros((3, 9, 7), np.uint8))
    write_idx(arrays[1], np.zeros((3, 9, 7), np.uint8))
    arrays[1].write_bytes(gzip.compress(arrays[1].read_bytes()))
    for path in [*packed(tmp_path, {f"{i}.png": PICTURE for i in range(3)}), *arrays]:
        sound = path.read_bytes()
        rejected = 0
        for _ in range(150):
            damaged = bytearray(sound)
            for at in rng.integers(0, len(damaged), 4):
                damaged[at] = rng.integers(0, 256)
            path.write_bytes(damaged)
            try:
                found = everything(path)
            except DataError:
                rejected += 1
            else:
                assert len(found) <= 2**12
        assert rejected < 150, path


def test_identity_of_sources_changes_with_their_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 9, 7), np.uint8))

    def identity():
        return [source.identity for source in open_sources([tmp_path / "a.npy", tmp_path])]

    before = identity()
    assert json.loads(json.dumps(before)) == before == identity()
    np.save(tmp_path / "a.npy", np.zeros((3, 9, 7), np.uint8))
    assert identity() != before


def test_folder_gives_its_pictures_in_the_order_in_which_paths_sort(tmp_path):
    pictures = ("b/2.png", "b/10.JPG", "b.png", "a/z/1.gif", "a.b/1.png", "é.webp", "Z.tiff")
    for name in pictures:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PICTURE)
    for name in ("notes.txt", "b/._2.png", ".png"):
        (tmp_path / name).write_text("not asked for")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = [picture for _, picture in everything(tmp_path)]
    assert found == sorted(tmp_path / name for name in (*pictures, "gone.png"))
    assert open_sources([tmp_path])[0].expected == len(found) == 8


def test_folder_is_cut_into_shards_and_keeps_names_that_are_not_text(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHARD_PICTURES", 4)
    odd = os.fsdecode(b"not-utf8-\xff\n.png")
    for name in [odd, *(f"{i * 37 % 40}.png" for i in range(40))]:
        (tmp_path / name).write_bytes(PICTURE)
    found = everything(tmp_path)
    assert [picture for _, picture in found] == sorted(tmp_path.iterdir())
    assert found[-1][0] == str(tmp_path / odd)
    assert len(list(open_sources([tmp_path])[0].shards())) == 11
