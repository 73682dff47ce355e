import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.idx import write_idx
from support.pictures import encoded, seven

from inkdigits.batch import arrays, folders, sources
from inkdigits.batch.sources import open_sources
from inkdigits.errors import (
    DataError,
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.ink.decode import Limits
from inkdigits.ink.normalize import preprocess

PICTURE = encoded(seven(40, 4))
SMALL = Limits(max_bytes=5000, max_pixels=10_000)


def everything(*paths, limits=SMALL):
    """(name, picture or error) of all pictures, in order."""
    return [
        pair
        for source in open_sources(list(paths), limits)
        for chunk in source.chunks()
        for pair in zip(chunk.names(), chunk.pictures(), strict=True)
    ]


def names(found, source):
    return [name.removeprefix(f"{source}#") for name, _ in found]


def zipped(path, members, **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path, members, mode="w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_folder_gives_its_pictures_in_the_order_in_which_paths_sort(tmp_path):
    for name in ("b/2.png", "b/10.JPG", "b.png", "a/z/1.gif", "a.b/1.png", "é.webp", "Z.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PICTURE)
    for name in ("notes.txt", "b/._2.png", ".png"):
        (tmp_path / name).write_text("not asked for")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = [picture for _, picture in everything(tmp_path)]
    expected = sorted(p for p in tmp_path.rglob("*") if p.suffix and p.is_file())
    expected = [p for p in expected if p.suffix != ".txt" and not p.name.startswith("._")]
    assert found == sorted([*expected, tmp_path / "gone.png"])
    assert folders.count(tmp_path) == len(found) == 8


def test_folder_with_more_names_than_are_kept_in_memory_is_sorted_all_the_same(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(folders, "NAMES_IN_MEMORY", 7)
    monkeypatch.setattr(sources, "CHUNK_PICTURES", 4)
    odd = os.fsdecode(b"not-utf8-\xff\n.png")
    for i in range(40):
        (tmp_path / f"{i * 37 % 40}.png").write_bytes(PICTURE)
    (tmp_path / odd).write_bytes(PICTURE)
    found = everything(tmp_path)
    assert [picture for _, picture in found] == sorted(tmp_path.iterdir())
    assert found[-1][0].endswith("not-utf8-\\udcff\n.png")
    assert len(list(open_sources([tmp_path])[0].chunks())) == 11


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
    assert name == str(path)
    assert "holds no pictures" in str(error)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_gives_what_zipfile_gives(packing, tmp_path):
    members = {f"folder {i}/é{i}.png": encoded(seven(30 + i, 4)) for i in range(30)}
    path = zipped(tmp_path / "a.zip", members | {"notes.txt": b"x"}, compression=packing)
    found = everything(path)
    assert names(found, path) == list(members)
    assert [picture for _, picture in found] == list(members.values())
    (source,) = open_sources([path])
    source.count()
    assert source.expected == 30


def test_zip_64_and_a_program_before_the_archive_are_read(tmp_path):
    plain = io.BytesIO()
    with (
        zipfile.ZipFile(plain, "w") as archive,
        archive.open("a.png", "w", force_zip64=True) as member,
    ):
        member.write(PICTURE)
    start = plain.getvalue().index(b"PK\x01\x02")
    end = plain.getvalue().index(b"PK\x05\x06")
    body, entry = plain.getvalue()[:start], bytearray(plain.getvalue()[start:end])
    # The same directory as a program writes it for an archive of more than 4 GiB.
    entry[20:28] = b"\xff" * 8
    entry[42:46] = b"\xff" * 4
    entry[30:32] = struct.pack("<H", 28)
    wide = struct.pack("<HHQQQ", 1, 24, len(PICTURE), len(PICTURE), 0)
    directory = bytes(entry[:46]) + b"a.png" + wide
    end_64 = struct.pack(
        *("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, len(directory), len(body))
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body) + len(directory), 1)
    end_32 = struct.pack(
        *("<4s4H2LH", b"PK\x05\x06", 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    )
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n" + body + directory + end_64 + locator + end_32)
    assert everything(path) == [(f"{path}#a.png", PICTURE)]


def test_name_that_leads_out_of_an_archive_is_only_a_name(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    evil = {"../../evil.png": PICTURE, "/tmp/evil.png": PICTURE, "..\\evil.png": PICTURE}
    for path in (
        zipped(inside / "a.zip", evil),
        tarred(inside / "a.tar", evil),
        tarred(inside / "a.tgz", evil, "w:gz"),
    ):
        found = everything(path)
        assert names(found, path) == list(evil)
        assert all(picture == PICTURE for _, picture in found)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "a.tgz", "a.zip", "inside"]


def test_member_over_the_limit_is_an_error_in_its_place_and_is_not_unpacked(tmp_path):
    members = {"a.png": PICTURE, "huge.png": bytes(10_000_000), "z.png": PICTURE}
    for path in (
        zipped(tmp_path / "a.zip", members, compression=zipfile.ZIP_DEFLATED),
        tarred(tmp_path / "a.tar", members),
        tarred(tmp_path / "a.tar.gz", members, "w:gz"),
    ):
        first, huge, last = (picture for _, picture in everything(path))
        assert first == last == PICTURE
        assert isinstance(huge, ImageTooLargeError)
        assert "10,000,000 bytes; at most 5,000" in str(huge)


def test_zip_member_that_holds_more_than_it_declares_is_not_unpacked_further(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(3_000_000)}, compression=8)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = struct.pack("<L", 100)
    path.write_bytes(content)
    ((_, error),) = everything(path)
    assert isinstance(error, UnreadableImageError)
    assert "isn't what the archive's directory says" in str(error)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, 1, "encrypted"),
        (10, 12, "ZIP method 12"),
        (16, 7, "isn't what the archive's directory says"),
        (42, 9, "no member where its directory says"),
    ],
)
def test_zip_member_that_cannot_be_had_says_why(offset, value, message, tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": PICTURE, "b.png": PICTURE})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    (_, error), (_, whole) = everything(path)
    assert isinstance(error, UnreadableImageError | UnsupportedImageError)
    assert message in str(error)
    assert whole == PICTURE


def test_zip_whose_directory_is_damaged_gives_what_comes_before(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": PICTURE, "b.png": PICTURE})
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02")] = 0
    path.write_bytes(content)
    (_, first), (name, error) = everything(path)
    assert first == PICTURE
    assert name == str(path)
    assert "directory is damaged" in str(error)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated_tar_gives_what_comes_before_and_an_error(mode, tmp_path):
    rng = np.random.default_rng(0)
    members = {
        f"{i}.png": encoded(Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)))
        for i in range(10)
    }
    path = tarred(tmp_path / ("a.tar.gz" if mode == "w:gz" else "a.tar"), members, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *whole, (_, error) = everything(path)
    good = [picture for _, picture in whole if isinstance(picture, bytes)]
    assert good == list(members.values())[: len(good)]
    assert len(good) >= 2
    assert isinstance(error, UnreadableImageError)
    assert str(path) in str(error)


def test_tar_that_ends_between_two_members_is_truncated_too(tmp_path):
    path = tarred(tmp_path / "a.tar", {"a.png": PICTURE, "b.png": PICTURE})
    path.write_bytes(path.read_bytes()[: 512 + -(-len(PICTURE) // 512) * 512])
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
    assert "holds no pictures" in str(error)


def test_tar_header_that_declares_gigabytes_is_refused_unread(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 7 * 2**30
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    with pytest.raises(DataError, match="declares 7,516,1"):
        open_sources([path])


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


@pytest.mark.parametrize("shape", [(5, 9, 7), (5, 9, 7, 1), (5, 9, 7, 3), (5, 9, 7, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_array_gives_its_pictures(shape, order, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK_BYTES", 2 * 9 * 7 * (shape[3:] or (1,))[0])
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape) % 256, np.uint8, order=order)
    np.save(tmp_path / "a.npy", array)
    found = everything(tmp_path / "a.npy")
    assert names(found, tmp_path / "a.npy") == list("01234")
    assert np.array_equal(np.stack([picture for _, picture in found]), array)
    assert len(list(open_sources([tmp_path / "a.npy"])[0].chunks())) == 3


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 28, 28), np.float32), "holds float32; pictures are uint8"),
        (np.zeros((28, 28), np.uint8), "has the shape (28, 28)"),
        (np.zeros((3, 28, 28, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((3, 0, 28), np.uint8), "0 x 28 pixels"),
        (np.zeros((1, 101, 100), np.uint8), "101 x 100 pixels"),
        (np.array([None]), "can't be read as a NumPy array"),
    ],
)
def test_numpy_array_of_another_kind_is_refused(array, message, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError) as caught:
        open_sources([tmp_path / "a.npy"], SMALL)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "a.idx3-ubyte", "a.idx"])
def test_idx_gives_its_pictures_packed_or_not(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK_PICTURES", 4)
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
        (struct.pack(">HBBIII", 0, 8, 3, 1, 2**31, 2**31), "at most 10,000 are taken"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx_with_a_wrong_header_is_refused(header, message, packed, tmp_path):
    path = tmp_path / ("a.idx.gz" if packed else "a.idx")
    content = header + (bytes(4) if len(header) == 16 else b"")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError) as caught:
        open_sources([path], SMALL)
    assert message in str(caught.value)


def test_idx_shorter_than_its_header_says(tmp_path):
    content = struct.pack(">HBBIII", 0, 8, 3, 5, 4, 4) + bytes(16 * 3 + 5)
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(DataError, match=r"declares 5 pictures, 80 bytes; it has 53"):
        open_sources([tmp_path / "a.idx"])
    path = tmp_path / "a.idx.gz"
    path.write_bytes(gzip.compress(content))
    *whole, (_, error) = everything(path)
    assert len(whole) == 3
    assert "ends after 3 of 5 pictures" in str(error)


@pytest.mark.parametrize("name", ["a.idx.gz", "a.tar.gz"])
def test_wrong_checksum_of_what_is_compressed_as_a_whole_is_told_of(name, tmp_path):
    path = tmp_path / name
    if name == "a.idx.gz":
        header = struct.pack(">HBBIII", 0, 8, 3, 5, 4, 4)
        path.write_bytes(gzip.compress(header + bytes(16 * 5)))
    else:
        tarred(path, {f"{i}.png": PICTURE for i in range(5)}, "w:gz")
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    *whole, (source, error) = everything(path)
    assert len(whole) == 5
    assert source == str(path)
    assert "CRC" in str(error)


def test_idx_longer_than_its_header_says(tmp_path):
    content = struct.pack(">HBBIII", 0, 8, 3, 2, 4, 4) + bytes(16 * 3)
    (tmp_path / "a.idx.gz").write_bytes(gzip.compress(content))
    assert "more than the 2 pictures" in str(everything(tmp_path / "a.idx.gz")[-1][1])


def test_array_that_shrinks_after_it_was_opened_is_told_of(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 9, 7), np.uint8))
    (source,) = open_sources([tmp_path / "a.npy"])
    (chunk,) = source.chunks()
    np.save(tmp_path / "a.npy", np.zeros((1, 9, 7), np.uint8))
    with pytest.raises(DataError, match="has been changed"):
        list(chunk.pictures())


def test_files_by_name_keep_their_place_among_other_sources(tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    np.save(tmp_path / "b.npy", np.zeros((1, 9, 7), np.uint8))
    given = [tmp_path / "a.png", tmp_path / "none.png", tmp_path / "b.npy", tmp_path / "a.png"]
    assert len(open_sources(given)) == 3
    found = everything(*given)
    assert [Path(name.partition("#")[0]) for name, _ in found] == given


def test_key_of_a_chunk_changes_with_its_pictures(tmp_path):
    def keys(*members):
        path = tarred(tmp_path / "a.tgz", dict(members), "w:gz")
        return [chunk.key() for chunk in open_sources([path])[0].chunks()]

    same = keys(("a.png", PICTURE))
    assert same == keys(("a.png", PICTURE))
    assert same != keys(("b.png", PICTURE))
    assert same != keys(("a.png", PICTURE[:-1]))


def test_pictures_of_an_archive_end_a_chunk_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK_BYTES", 2 * len(PICTURE))
    path = tarred(tmp_path / "a.tgz", {f"{i}.png": PICTURE for i in range(5)}, "w:gz")
    sizes = [len(chunk.names()) for chunk in open_sources([path])[0].chunks()]
    assert sizes == [2, 2, 1]


def test_archive_members_read_like_the_pictures_themselves(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": PICTURE})
    ((_, picture),) = everything(path)
    assert np.array_equal(preprocess(picture), preprocess(PICTURE))


def test_random_damage_of_an_archive_or_array_ends_in_an_error_that_is_ours(tmp_path):
    rng = np.random.default_rng(0)
    members = {f"{i}.png": PICTURE for i in range(3)}
    paths = [
        zipped(tmp_path / "a.zip", members, compression=8),
        tarred(tmp_path / "a.tar", members),
        tarred(tmp_path / "a.tgz", members, "w:gz"),
        tmp_path / "a.npy",
        tmp_path / "a.idx.gz",
    ]
    np.save(paths[3], np.zeros((3, 9, 7), np.uint8))
    write_idx(tmp_path / "a.idx", np.zeros((3, 9, 7), np.uint8))
    paths[4].write_bytes(gzip.compress((tmp_path / "a.idx").read_bytes()))
    for path in paths:
        sound = path.read_bytes()
        refused = 0
        for _ in range(150):
            damaged = bytearray(sound)
            for at in rng.integers(0, len(damaged), 4):
                damaged[at] = rng.integers(0, 256)
            path.write_bytes(damaged)
            try:
                found = everything(path)
            except DataError:
                refused += 1
            else:
                assert len(found) <= 2**12
        assert refused < 150, path


def test_idx_is_told_by_its_name():
    assert arrays.is_idx_name("train-images-idx3-ubyte.gz")
    assert arrays.is_idx_name("Digits.IDX")
    assert not arrays.is_idx_name("idx.png")
