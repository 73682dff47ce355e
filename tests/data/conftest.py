"""Digits that pictures are made of."""

import pytest


@pytest.fixture(scope="session")
def digits(digits):
    """The inks and labels of the digits in which ink was found."""
    inks, labels = digits
    found = inks.any(axis=(1, 2))
    return inks[found], labels[found]
