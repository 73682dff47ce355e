import shutil

import pytest
import torch

from inkdigits.data.mnist import Digits, load_splits, stratified_split, writer_split
from inkdigits.errors import DataError


def test_split_is_stratified_disjoint_and_complete(small_mnist):
    splits = load_splits(small_mnist)
    assert [len(splits.train), len(splits.validation), len(splits.calibration)] == [1100, 30, 370]
    assert len(splits.test) == 297
    labels = torch.cat([splits.train.labels, splits.validation.labels, splits.calibration.labels])
    shares = labels.bincount() / len(labels)
    for part in (splits.validation, splits.calibration):
        assert (part.labels.bincount(minlength=10) / len(part) - shares).abs().max() < 2 / 30


def test_every_picture_is_in_exactly_one_part_by_the_seed():
    labels = torch.arange(1000) % 10
    parts, again, other = (stratified_split(labels, (0.05, 0.1), seed=s) for s in (1, 1, 2))
    assert [len(p) for p in parts] == [850, 50, 100]
    assert torch.cat(parts).sort().values.equal(torch.arange(1000))
    assert all(labels[p].bincount().unique().numel() == 1 for p in parts)
    assert parts[1].equal(again[1])
    assert not parts[1].equal(other[1])


@pytest.mark.mnist
def test_mnist_is_split_into_about_44000_1200_14800_and_10000(mnist_root):
    splits = load_splits(mnist_root)
    sizes = [len(p) for p in (splits.train, splits.validation, splits.calibration, splits.test)]
    assert sizes in ([44_000, 1_200, 14_800, 10_000], [44_142, 1_036, 14_822, 10_000])
    mean = float(splits.train.inks.float().mean()) / 255
    assert mean == pytest.approx(0.1307, abs=2e-3)


def test_missing_data_is_an_error_that_says_how_to_get_it_and_damaged_data_is_one(
    small_mnist, tmp_path
):
    with pytest.raises(DataError, match="--download"):
        load_splits(tmp_path)
    shutil.copytree(small_mnist, tmp_path, dirs_exist_ok=True)
    for path in (tmp_path / "MNIST" / "raw").iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError):
        load_splits(tmp_path)


def test_a_share_that_leaves_a_part_empty_is_an_error():
    with pytest.raises(DataError, match="empty"):
        stratified_split(torch.arange(10), (0.01,), seed=0)


def test_digest_changes_with_a_single_label():
    inks = torch.zeros(3, 28, 28, dtype=torch.uint8)
    first, same, other = (Digits(inks, torch.tensor([1, 2, n])).digest() for n in (3, 3, 4))
    assert first == same != other


@pytest.fixture
def with_writers(mnist_with_writers, tmp_path):
    shutil.copytree(mnist_with_writers, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_with_the_table_of_writers_no_writer_is_in_two_parts(with_writers):
    told = []
    splits = load_splits(with_writers, report=told.append)
    parts = [splits.train, splits.validation, splits.calibration, splits.test]
    assert [len(part) for part in parts] == [1110, 30, 360, 297]
    writers = [set(part.writers.tolist()) for part in parts[:3]]
    assert not writers[0] & writers[1] | writers[0] & writers[2] | writers[1] & writers[2]
    assert splits.origin["split"] == "writers"
    assert len(splits.origin["writers_sha256"]) == 2
    pupils = splits.calibration.writers >= 2100
    assert 0.4 < float(pupils.float().mean()) < 0.6
    assert splits.train[torch.arange(3)].writers.equal(splits.train.writers[:3])
    assert not told


def test_the_split_by_picture_stays_for_models_that_learned_from_it(with_writers, small_mnist):
    told = []
    by_picture = load_splits(with_writers, by="pictures")
    without_table = load_splits(small_mnist, report=told.append)
    assert by_picture.calibration.digest() == without_table.calibration.digest()
    assert by_picture.origin == without_table.origin
    assert "no table" in told[0]
    with pytest.raises(DataError, match="qmnist-train-labels"):
        load_splits(small_mnist, by="writers")


def test_a_table_of_other_digits_is_an_error(with_writers):
    table = with_writers / "qmnist" / "qmnist-train-labels-idx2-int.gz"
    shutil.copy(with_writers / "qmnist" / "qmnist-test-labels-idx2-int.gz", table)
    with pytest.raises(DataError, match="of other digits"):
        load_splits(with_writers)
    table.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        load_splits(with_writers)


def test_too_few_writers_for_a_part_are_an_error():
    with pytest.raises(DataError, match="2 writers are empty"):
        writer_split(torch.tensor([1, 1, 2, 2]), (0.01,), seed=0)
