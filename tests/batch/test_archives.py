import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from support.batches import PICTURE, everything, names, packed, tarred, zipped
from support.pictures import encoded, seven

from inkdigits.batch import sources
from inkdigits.batch.sources import open_sources
from inkdigits.errors import DataError, ImageError, ImageTooLargeError, UnreadableImageError


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
    assert open_sources([path])[0].expected == 30


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
        assert type(huge) is ImageTooLargeError
        assert "10,000,000 bytes; at most 5,000" in str(huge)


def test_zip_member_that_holds_more_than_it_declares_is_not_unpacked_further(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": bytes(3_000_000)}, compression=8)
    alter(path, 24, struct.pack("<L", 100))
    ((_, error),) = everything(path)
    assert isinstance(error, UnreadableImageError)
    assert "differs from what the archive's directory says" in str(error)


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (8, 1, "encrypted"),
        (10, 12, "ZIP method 12"),
        (16, 7, "differs from what the archive's directory says"),
        (42, 9, "no member where its directory says"),
    ],
)
def test_zip_member_that_cannot_be_had_says_why(offset, value, message, tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": PICTURE, "b.png": PICTURE})
    alter(path, offset, bytes([value]))
    (_, error), (_, whole) = everything(path)
    assert isinstance(error, ImageError)
    assert message in str(error)
    assert whole == PICTURE


def test_zip_whose_directory_is_damaged_is_rejected_before_any_work(tmp_path):
    path = zipped(tmp_path / "a.zip", {"a.png": PICTURE, "b.png": PICTURE})
    alter(path, 0, b"\0")
    with pytest.raises(DataError, match="cannot be read as a ZIP archive"):
        open_sources([path])


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
    assert isinstance(error, UnreadableImageError)
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
    assert "holds no pictures" in str(error)


def test_pictures_of_an_archive_end_a_shard_by_their_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SHARD_BYTES", 2 * len(PICTURE))
    path = tarred(tmp_path / "a.tgz", {f"{i}.png": PICTURE for i in range(5)}, "w:gz")
    sizes = [len(shard.names) for shard in open_sources([path])[0].shards()]
    assert sizes == [2, 2, 1]
