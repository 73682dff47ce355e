import pytest
from support.answers import code_of
from support.fakes import FakeReader, blank_picture, send_digit

import inkdigits
from inkdigits.errors import ArtifactCorruptError
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


def test_healthy_once_a_warm_up_prediction_has_worked(client, reader):
    assert len(reader.received) == 1
    told = {"status": "healthy", "model_loaded": True, "model_version": "fake-1"}
    assert client.get("/health").json == {**told, "version": inkdigits.__version__}
    assert client.get("/health/ready").json == {
        "status": "ready",
        "log": "off",
        "rates": "process",
    }
    assert client.get("/health/live").json == {"status": "alive"}
    assert len(reader.received) == 1


@pytest.mark.parametrize("is_replaced", [False, True])
def test_not_ready_until_the_warm_up_works_or_another_model_comes(is_replaced):
    reader = FakeReader(failure=ArtifactCorruptError("secret detail"))
    app = create_app(Settings(), reader)
    client = app.test_client()
    health = client.get("/health")
    assert (health.status_code, health.json["error"]["code"]) == (503, "not_ready")
    assert (health.json["status"], health.json["model_loaded"]) == ("unhealthy", False)
    assert "secret" not in health.text
    assert code_of(client.get("/health/ready")) == (503, "not_ready")
    denied = send_digit(client)
    assert (*code_of(denied), denied.headers["Retry-After"]) == (503, "not_ready", "1")
    assert client.get("/health/live").status_code == 200
    if is_replaced:
        app.extensions["inkdigits.reader"].use(FakeReader())
    else:
        reader.failure = None
    assert client.get("/health").status_code == 200


def test_reader_that_sees_no_digit_in_the_warm_up_is_not_ready():
    reader = FakeReader()
    reader.digit = None
    reader.predict = lambda picture: FakeReader.predict(FakeReader(), blank_picture())
    assert create_app(Settings(), reader).test_client().get("/health").status_code == 503
