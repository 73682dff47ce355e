"""An application with the page and a log, and a browser that has it open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from support.browser import TOKEN, Browser
from support.databases import PATIENT
from support.fakes import FakeReader

from inkdigits.log.store import Store
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", admin_token=TOKEN)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.log_url, outbox_dir=settings.outbox_folder, options=PATIENT) as opened:
        yield opened


@pytest.fixture
def app(settings: Settings, reader: FakeReader, store: Store) -> Flask:
    return create_app(settings, reader, store)


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app)
