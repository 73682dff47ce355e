"""Small data and one small training, shared by the tests of the training room."""

import pytest
import torch
from support.training import CONFIG

from inkdigits.data.mnist import load_splits
from inkdigits.training.fit import FitInputs, fit


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
    return fit(inputs, CONFIG, torch.device("cpu"))
