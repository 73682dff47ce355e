import logging

from support.fakes import FakeReader

from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


def test_index_names_the_endpoints_and_is_not_to_be_cached(client):
    answer = client.get("/api")
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get("/").json == answer.json
    assert answer.json["name"] == "inkdigits"
    assert {"POST /predict", "GET /docs"} <= set(answer.json["endpoints"])


def test_creating_the_application_configures_no_logging():
    before = list(logging.getLogger().handlers)
    create_app(Settings(), FakeReader())
    assert logging.getLogger().handlers == before
