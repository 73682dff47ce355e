import shutil

import pytest
import torch

from inkdigits.data.mnist import Digits, load_splits, stratified_split
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
def test_mnist_is_split_into_44000_1200_14800_and_10000(mnist_root):
    splits = load_splits(mnist_root)
    sizes = [len(p) for p in (splits.train, splits.validation, splits.calibration, splits.test)]
    assert sizes == [44_000, 1_200, 14_800, 10_000]
    mean = float(splits.train.inks.float().mean()) / 255
    assert mean == pytest.approx(0.1307, abs=1e-3)


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


@pytest.mark.parametrize(
    ("n", "fractions", "message"),
    [
        *((100, shares, "less than 1") for shares in ((0.5, 0.5), (0.0,), (1.2,))),
        (10, (0.01,), "empty"),
    ],
)
def test_shares_that_leave_a_part_empty_are_errors(n, fractions, message):
    with pytest.raises(DataError, match=message):
        stratified_split(torch.arange(n) % 10, fractions, seed=0)


def test_digest_changes_with_a_single_label():
    inks = torch.zeros(3, 28, 28, dtype=torch.uint8)
    first, same, other = (Digits(inks, torch.tensor([1, 2, n])).digest() for n in (3, 3, 4))
    assert first == same != other
