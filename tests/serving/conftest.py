"""A service without a page or a log, around a fake reader."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from support.fakes import FakeReader

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


@pytest.fixture
def reader() -> FakeReader:
    return FakeReader()


@pytest.fixture
def client(reader: FakeReader) -> FlaskClient:
    return create_app(Settings(page="off"), reader).test_client()
