"""A service without a page or a log, around a fake reader."""

import pytest
from support.fakes import FakeReader

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


@pytest.fixture
def reader():
    return FakeReader()


@pytest.fixture
def client(reader):
    return create_app(Settings(page="off"), reader).test_client()
