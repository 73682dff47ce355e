"""Data that the tests make themselves, and the real MNIST where it is there."""

from __future__ import annotations

import gzip
import importlib
import os
import shutil
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.idx import write_idx
from support.repository import REPOSITORY

from inkdigits.reader import preprocess


def draw_digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 real digits by Turkish writers that come with scikit-learn, as canonical ink."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    inks = [
        preprocess(np.asarray(Image.fromarray((a * 255 / 16).astype(np.uint8)).resize((80, 80))))
        for a in bundle.images
    ]
    return np.stack(inks), bundle.target.astype(np.uint8)


def pytest_configure(config: pytest.Config) -> None:
    """Let services that the tests start be interrupted, also under nohup, which ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(REPOSITORY).parts[1]
        if folder == "e2e" or "postgresql" in item.name:
            item.add_marker(pytest.mark.e2e)
        if folder in ("training", "benchmarks"):
            item.add_marker(pytest.mark.trains)


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[Any]:
    """Imports the scripts in benchmarks/ by name."""
    folder = str(REPOSITORY / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Inks (1797, 28, 28) uint8 and labels (1797,) uint8."""
    return draw_digits()


@pytest.fixture(scope="session")
def small_mnist(digits, tmp_path_factory) -> Path:
    """A data folder in TorchVision's layout with 1,500 training and 297 test pictures."""
    inks, labels = digits
    # Some wrong labels, as every real data set has: a temperature can't be fitted without errors.
    labels = labels.copy()
    labels[::40] = (labels[::40] + 1) % 10
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, part in (("train", slice(0, 1500)), ("t10k", slice(1500, None))):
        write_idx(raw / f"{name}-images-idx3-ubyte", inks[part])
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels[part])
    return root


@pytest.fixture(scope="session")
def mnist_with_writers(small_mnist, tmp_path_factory) -> Path:
    """The same, by writers with 15 digits each; every other one is a pupil."""
    root = tmp_path_factory.mktemp("written")
    shutil.copytree(small_mnist, root, dirs_exist_ok=True)
    (root / "qmnist").mkdir()
    for name, part in (("train", "train"), ("test", "t10k")):
        raw = (root / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte").read_bytes()[8:]
        rows = np.zeros((len(raw) + 7, 8), ">i4")  # the real table of the test part is longer too
        rows[: len(raw), 0] = list(raw)
        writer = np.arange(len(rows)) // 15
        rows[:, 2] = writer + 2100 * (writer % 2)
        content = struct.pack(">III", 0x0C02, *rows.shape) + rows.tobytes()
        table = root / "qmnist" / f"qmnist-{name}-labels-idx2-int.gz"
        table.write_bytes(gzip.compress(content))
    return root


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The real MNIST; tests that ask for it are skipped where it isn't there."""
    candidates = [REPOSITORY / "data", REPOSITORY.parent / "shared" / "data"]
    if "MNIST_ROOT" in os.environ:
        candidates.insert(0, Path(os.environ["MNIST_ROOT"]))
    for root in candidates:
        if (root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").is_file():
            return root
    pytest.skip("MNIST isn't in data/ nor at MNIST_ROOT")


@pytest.fixture(scope="session")
def mnist_test(mnist_root) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's test part: inks (10000, 28, 28) uint8 and labels (10000,)."""
    raw = mnist_root / "MNIST" / "raw"
    inks = np.fromfile(raw / "t10k-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28)
    return inks, np.fromfile(raw / "t10k-labels-idx1-ubyte", np.uint8)[8:]
