"""Small data and one small training, shared by the tests of the training room."""

from dataclasses import replace

import pytest
import torch
from support.training import CONFIG

from inkdigits.data.mnist import load_splits
from inkdigits.training.fit import FitInputs, fit


@pytest.fixture(scope="session", autouse=True)
def _small_groups():
    """Calibrate on few digits of each group."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inkdigits.training.pipeline.GROUP_SIZE", 200)
        yield


@pytest.fixture(scope="session")
def splits(small_mnist):
    return load_splits(small_mnist)


@pytest.fixture(scope="session")
def inputs(splits):
    return FitInputs(splits.train, splits.validation)


@pytest.fixture(scope="session")
def few(splits):
    """Six batches, for what need not learn to read."""
    return FitInputs(splits.train[torch.arange(540)], splits.validation)


@pytest.fixture(scope="session")
def fitted(inputs):
    return fit(inputs, replace(CONFIG, epochs=6), torch.device("cpu"))
