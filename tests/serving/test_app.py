import logging

from support.fakes import FakeReader

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


def test_index_names_the_version_and_the_endpoints(client):
    index = client.get("/api").json
    assert client.get("/").json == index
    assert index["name"] == "inkdigits"
    assert {"POST /predict", "GET /docs"} <= set(index["endpoints"])


def test_creating_the_application_configures_no_logging():
    before = list(logging.getLogger().handlers)
    create_app(Settings(), FakeReader())
    assert logging.getLogger().handlers == before


def test_answers_are_not_to_be_cached(client):
    assert client.get("/health").headers["Cache-Control"] == "no-store"
