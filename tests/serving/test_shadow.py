"""A second model reads a share, answers nobody, and what it reads otherwise is queued."""

import threading

import pytest
from support.databases import opened, sqlite_url
from support.fakes import FakeReader, drawn_digit, send_digit
from support.processes import wait_until
from support.scrape import parse, value

from inkdigits.errors import ConfigError, InferenceError
from inkdigits.log.record import Shares
from inkdigits.model.artifact import ARTIFACT_NAME
from inkdigits.serving.app import create_app
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.serving.shadow import MOST_WAITING, Shadow, shadow_path
from inkdigits.settings import Settings


@pytest.fixture
def store(tmp_path):
    with opened(sqlite_url(tmp_path), tmp_path, shares=Shares(audit=0.0)) as made:
        yield made


@pytest.fixture
def metrics():
    return Metrics()


@pytest.fixture
def second():
    reader = FakeReader(digit=3)
    reader.model_version = "fake-2"
    return reader


@pytest.fixture
def served(tmp_path, store, metrics, second):
    """An application with a second model for every picture, and its client."""
    app = create_app(Settings(data_dir=tmp_path), FakeReader(), store, metrics)
    app.extensions["inkdigits.reader"].shadow = Shadow(lambda: second, 1.0, store, metrics)
    return app.test_client()


def counted(client, outcome):
    labels = {"model_version": "fake-2", "outcome": outcome}
    return value(parse(client.get("/metrics").text), "inkdigits_shadow_total", **labels)


def test_what_a_second_model_reads_otherwise_is_noted_and_the_first_answers(served, store):
    answer = send_digit(served).json
    assert (answer["prediction"], answer["model_version"]) == (7, "fake-1")
    wait_until(lambda: store.get(answer["id"]).shadow is not None)
    record = store.get(answer["id"])
    assert (record.queued, record.digit) == ("differs", 7)
    assert (record.shadow["model_version"], record.shadow["text"]) == ("fake-2", "3")
    assert counted(served, "differs") == 1


def test_what_it_reads_the_same_is_counted_and_its_failures_answer_nobody(
    served, store, second, caplog
):
    second.failure = InferenceError("ONNX Runtime failed")
    assert send_digit(served).status_code == 200
    wait_until(lambda: "a second reading failed" in caplog.text)
    second.failure, second.digit = None, 7
    send_digit(served)
    wait_until(lambda: len(second.received) == 1)
    wait_until(lambda: counted(served, "same") == 1)
    assert all(record.shadow is None for record in store.page().records)


def test_a_stable_share_is_read_and_few_wait(store, metrics):
    prediction = FakeReader().predict(drawn_digit())
    for share, waiting in ((0.0, 0), (1.0, MOST_WAITING)):
        shadow = Shadow(threading.Event().wait, share, store, metrics)  # it never takes any
        for _ in range(2 * MOST_WAITING):
            shadow.offer("x", b"", prediction)
        assert shadow._waiting.qsize() == waiting


def test_a_second_model_is_a_path_or_a_version_beside_the_first(tmp_path):
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / ARTIFACT_NAME).touch()
    for name in ("v2", str(tmp_path / "v2"), str(tmp_path / "v2" / ARTIFACT_NAME)):
        settings = Settings(shadow=name, model_path=tmp_path / "current")
        assert shadow_path(settings) == tmp_path / "v2" / ARTIFACT_NAME
    with pytest.raises(ConfigError, match="no model 'v3'"):
        shadow_path(Settings(shadow="v3", model_path=tmp_path / "current"))
