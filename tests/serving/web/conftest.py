"""An application with the page and a log, and a browser that has it open."""

import pytest
from support.browser import TOKEN, Browser
from support.databases import PATIENT

from inkdigits.log.store import Store
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data", admin_token=TOKEN)


@pytest.fixture
def store(settings):
    with Store(settings.log_url, outbox_dir=settings.outbox_folder, options=PATIENT) as opened:
        yield opened


@pytest.fixture
def app(settings, reader, store):
    return create_app(settings, reader, store)


@pytest.fixture
def browser(app):
    return Browser(app)
