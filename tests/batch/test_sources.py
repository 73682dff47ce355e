import gzip
import json
import os
import re
import struct
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.batches import PICTURE, SMALL, everything, names, packed, tarred, zipped
from support.idx import write_idx
from support.pictures import encoded, seven

from inkdigits.batch import sources
from inkdigits.batch.sources import Source, shards_of
from inkdigits.errors import ImageError


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(sources, "DEFAULT_LIMITS", SMALL)


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
    assert (name, "contains no pictures" in str(error)) == (str(path), True)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.npy", "a.idx", "a.idx.gz"])
@pytest.mark.parametrize("content", [b"", b"not what the name says", bytes(3000), None])
def test_source_that_is_not_what_its_name_says_is_an_error_in_its_place(name, content, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    ((source, error),) = everything(path)
    assert source == str(path)
    # A TAR archive of nothing but an end is empty.
    assert re.search(f"{name} (cannot be read|holds|contains no pictures)", str(error))


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
            found = everything(path)
            rejected += found[0][0] == str(path)
            assert len(found) <= 2**12
        assert rejected < 150, path


def test_identity_of_sources_changes_with_their_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 9, 7), np.uint8))

    def identity():
        return [Source(path).identity for path in (tmp_path / "a.npy", tmp_path)]

    before = identity()
    assert json.loads(json.dumps(before)) == before == identity()
    np.save(tmp_path / "a.npy", np.zeros((3, 9, 7), np.uint8))
    assert identity() != before


def test_folder_gives_its_pictures_in_the_order_in_which_paths_sort(tmp_path):
    odd = os.fsdecode(b"not-utf8-\xff\n.png")
    pictures = ("b/2.png", "b/10.JPG", "b.png", "a/z/1.gif", "a.b/1.png", "é.webp", odd)
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
    assert Source(tmp_path).expected == len(found) == 8


def alter(path, offset, value):
    """Write other bytes into the first entry of a ZIP archive's directory."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02") + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_gives_what_zipfile_gives(packing, tmp_path):
    members = {f"folder {i}/é{i}.png": encoded(seven(30 + i, 4)) for i in range(30)}
    path = zipped(tmp_path / "a.zip", members | {"notes.txt": b"x"}, compression=packing)
    found = everything(path)
    assert names(found, path) == list(members)
    assert [picture for _, picture in found] == list(members.values())
    assert Source(path).expected == 30


def test_zip_64_and_a_program_before_the_archive_are_read(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n")
    with (
        zipfile.ZipFile(path, "a") as archive,
        archive.open("a.png", "w", force_zip64=True) as member,
    ):
        member.write(PICTURE)
    assert everything(path) == [(f"{path}#a.png", PICTURE)]


def test_member_over_the_limit_is_an_error_in_its_place_and_is_not_unpacked(tmp_path):
    members = {"a.png": PICTURE, "huge.png": bytes(10_000_000), "z.png": PICTURE}
    for path in packed(tmp_path, members):
        first, huge, last = (picture for _, picture in everything(path))
        assert first == last == PICTURE
        assert type(huge) is ImageError
        assert "10,000,000 bytes; at most 5,000" in str(huge)


def test_zip_member_that_holds_more_than_it_declares_is_not_unpacked_further(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(3_000_000)}, compression=8)
    alter(path, 24, struct.pack("<L", 100))
    ((_, error),) = everything(path)
    assert isinstance(error, ImageError)
    assert "Bad CRC-32" in str(error)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, 1, "encrypted"),
        (10, 12, "ZIP method 12"),
        (16, 7, "Bad CRC-32"),
        (42, 9, "Bad magic number"),
        (45, 9, "no member where its directory says"),
    ],
)
def test_zip_member_that_cannot_be_had_says_why(offset, value, message, tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": PICTURE, "b.png": PICTURE})
    alter(path, offset, bytes([value]))
    (_, error), (_, whole) = everything(path)
    assert isinstance(error, ImageError)
    assert message in str(error)
    assert whole == PICTURE


def test_zip_whose_directory_is_damaged_is_an_error_in_its_place(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": PICTURE, "b.png": PICTURE})
    alter(path, 0, b"\0")
    ((_, error),) = everything(path)
    assert "a.zip cannot be read" in str(error)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated_tar_gives_what_comes_before_and_an_error(mode, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)) for _ in range(10)]
    members = {f"{i}.png": encoded(picture) for i, picture in enumerate(pictures)}
    path = tarred(tmp_path / ("a.tar.gz" if mode == "w:gz" else "a.tar"), members, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *whole, (_, error) = everything(path)
    good = [picture for _, picture in whole if isinstance(picture, bytes)]
    assert good == list(members.values())[: len(good)]
    assert len(good) >= 2
    assert isinstance(error, ImageError)
    assert str(path) in str(error)


@pytest.mark.parametrize("more", [0, 100, 512])
def test_tar_that_ends_between_two_members_is_truncated_too(more, tmp_path):
    path = tarred(tmp_path / "a.tar", {"a.png": PICTURE, "b.png": PICTURE})
    content = path.read_bytes()[: 512 + -(-len(PICTURE) // 512) * 512 + more]
    path.write_bytes(content[:-512] + b"x" * 512 if more == 512 else content)
    (_, whole), (_, error) = everything(path)
    assert whole == PICTURE
    assert "truncated" in str(error)


def test_tar_leaves_out_what_is_no_file_and_reads_long_names(tmp_path):
    long_name = "folder/" * 40 + "é.png"
    path = tarred(tmp_path / "a.tar.gz", {long_name: PICTURE}, "w:gz")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert everything(path) == [(f"{path}#{long_name}", PICTURE)]
    ((_, error),) = everything(tmp_path / "b.tar")
    assert "contains no pictures" in str(error)


@pytest.mark.parametrize("shape", [(5, 9, 7), (5, 9, 7, 1), (5, 9, 7, 3), (5, 9, 7, 4)])
def test_numpy_array_gives_its_pictures(shape, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHARD_BYTES", 2 * 9 * 7 * (shape[3:] or (1,))[0])
    array = (np.arange(np.prod(shape)).reshape(shape) % 256).astype(np.uint8)
    np.save(tmp_path / "a.npy", array)
    found = everything(tmp_path / "a.npy")
    assert names(found, tmp_path / "a.npy") == list("01234")
    assert np.array_equal(np.stack([picture for _, picture in found]), array)
    assert len(list(shards_of([Source(tmp_path / "a.npy")]))) == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 28, 28), np.float32), "holds float32 of the shape"),
        (np.zeros((28, 28), np.uint8), "of the shape (28, 28)"),
        (np.zeros((3, 28, 28, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((3, 0, 28), np.uint8), "of the shape (3, 0, 28)"),
        (np.zeros((1, 101, 100), np.uint8), "of 1 to 10,000 pixels"),
        (np.zeros((3, 28, 28), np.uint8, "F"), "uint8 in Fortran order of the shape (3, 28, 28)"),
        (np.array([None]), "holds object"),
    ],
)
def test_numpy_array_of_another_kind_is_an_error_in_its_place(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array)
    ((_, error),) = everything(tmp_path / "a.npy")
    assert message in str(error)


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
        (struct.pack(">HBBIII", 0, 13, 3, 1, 2, 2), "IDX of the type 00 00 0d 03"),
        (struct.pack(">HBBI", 0, 8, 1, 4), "cannot be read"),
        (struct.pack(">HBBIII", 1, 8, 3, 1, 2, 2), "IDX of the type 00 01 08 03"),
        (struct.pack(">HBBI", 0, 8, 3, 4), "cannot be read"),
        (struct.pack(">HBBIII", 0, 8, 3, 1, 2**31, 2**31), "of 1 to 10,000 pixels"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_a_wrong_header_is_an_error_in_its_place(header, message, packed, tmp_path):
    path = tmp_path / ("a.idx.gz" if packed else "a.idx")
    content = header + (bytes(4) if len(header) == 16 else b"")
    path.write_bytes(gzip.compress(content) if packed else content)
    ((_, error),) = everything(path)
    assert message in str(error)


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
@pytest.mark.parametrize(("size", "number"), [(53, 3), (96, 5)])
def test_idx_of_another_length_than_its_header_says(name, size, number, tmp_path):
    content = struct.pack(">HBBIII", 0, 8, 3, 5, 4, 4) + bytes(size)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    *whole, (_, error) = everything(tmp_path / name)
    assert len(whole) == number
    assert re.search("fewer or more than the 5 pictures|ends inside a picture", str(error))


def test_array_that_shrinks_after_it_was_opened_is_told_of(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 9, 7), np.uint8))
    (shard,) = shards_of([Source(tmp_path / "a.npy")])
    np.save(tmp_path / "a.npy", np.zeros((1, 9, 7), np.uint8))
    _, *gone = shard.pictures()
    assert all("differs from what its file said" in str(error) for error in gone)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_header_of_a_gigabyte_is_not_taken_into_memory(form, tmp_path):
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz", format=form) as archive:
        archive.addfile(tarfile.TarInfo("0.png"))
        member = tarfile.TarInfo("long.png" + "x" * 200_000)
        archive.addfile(member)
    (name, _), (_, error) = everything(tmp_path / "b.tar.gz")
    assert name.endswith("#0.png")
    assert "header of more than 131,072 bytes" in str(error)


def test_parquet_table_gives_the_pictures_of_its_column_image(tmp_path):
    images = [{"bytes": PICTURE, "path": "7.png"}, {"bytes": None, "path": "none.png"}]
    pq.write_table(pa.table({"image": images, "label": [7, 0]}), tmp_path / "a.parquet")
    (name, picture), (_, error) = everything(tmp_path / "a.parquet")
    assert (name, picture) == (f"{tmp_path}/a.parquet#0", PICTURE)
    assert "no encoded picture" in str(error)


@pytest.mark.parametrize("image", [[[b"a"]], [1], ["fixed"]])
def test_parquet_column_that_is_not_bytes_is_an_error_in_its_place(image, tmp_path):
    kind = pa.binary(5) if image == ["fixed"] else None
    pq.write_table(pa.table({"image": pa.array(image, kind)}), tmp_path / "a.parquet")
    ((_, error),) = everything(tmp_path / "a.parquet")
    assert "no column image of bytes" in str(error)
