"""The client against the real application and against servers that misbehave."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from support.databases import opened, sqlite_url
from support.fakes import FakeReader, SeesSeveral, blank_picture, drawn_digit, empty_png
from support.local_http import answering, reply, served

from inkdigits import Client
from inkdigits.client import UNKNOWN_VERSION
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.decision.prediction import ServedPrediction
from inkdigits.errors import (
    ClientError,
    HintError,
    ImageTooLargeError,
    RequestDeniedError,
    UnreadableImageError,
    UnsupportedImageError,
)
from inkdigits.errors import ServiceUnavailableError as Unavailable
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

BUSY = b'{"error": {"code": "too_busy", "message": "Ask again."}}'


class Service:
    """The application, behind some answers that are given first."""

    def __init__(self, model, store=None):
        self.model = model
        self.app = create_app(Settings(max_batch=3, page="off"), model, store)
        self.first, self.requests = [], []

    def __call__(self, environ, start_response):
        self.requests.append(environ)
        if not self.first:
            return self.app(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, headers, body = self.first.pop(0)
        start_response(status, list(headers.items()))
        return [body]


@pytest.fixture
def service():
    return Service(FakeReader())


@pytest.fixture
def model(service):
    return service.model


@pytest.fixture
def url(service):
    with served(service) as address:
        yield address


@pytest.fixture
def client(url):
    with Client(url) as made:
        yield made


@pytest.fixture
def waits(monkeypatch):
    waited = []
    monkeypatch.setattr("inkdigits.client.sleep", waited.append)
    return waited


def test_reading_and_explanation_are_the_readers_own(client, model):
    here, there = model.predict(drawn_digit()), client.predict(drawn_digit())
    for name in ("digit", "confidence", "probabilities", "decision", "reason", "novelty"):
        assert getattr(there, name) == getattr(here, name)
    assert np.array_equal(there.ink, here.ink)
    assert there.ink.dtype == np.uint8
    assert (there.preprocessing_ms, there.inference_ms) == (0.25, 0.5)
    assert there.id
    assert client.predict(blank_picture()).digit is None
    here, there = model.explain(drawn_digit()), client.explain(drawn_digit(), risk=0.01)
    assert (there.prediction.risk, there.runner_up, there.runner_up_probability) == (0.01, 8, 0.01)
    assert (there.overlay, there.saliency.dtype) == (here.overlay, np.float32)
    assert np.allclose(there.saliency, here.saliency, atol=1e-6)


def test_every_kind_of_picture_is_read(client, model, tmp_path):
    path = tmp_path / "seven.png"
    path.write_bytes(drawn_digit())
    image = Image.open(path)
    kinds = (path, str(path), image, np.asarray(image), drawn_digit("JPEG"))
    assert [client.predict(picture).digit for picture in kinds] == [7] * 5
    assert model.received[-1] == drawn_digit("JPEG")
    with pytest.raises(UnreadableImageError, match="missing"):
        client.predict(tmp_path / "missing.png")


def test_risk_is_sent_and_answered(client, url):
    assert client.predict(drawn_digit()).risk is None
    asked = client.predict(drawn_digit(), risk=1e-4)
    assert (asked.decision, asked.risk, asked.coverage) == ("review", 1e-4, 0.0)
    (in_batch,) = client.predict_batch([drawn_digit()], risk=0.01)
    assert (in_batch.decision, in_batch.risk, in_batch.coverage) == ("accept", 0.01, 0.99)
    with Client(url, risk=1e-4) as strict:
        assert strict.predict(drawn_digit()).decision == "review"
        assert strict.predict(drawn_digit(), risk=0.01).decision == "accept"


def test_rejected_pictures_raise_the_errors_of_a_reader(client, model):
    for content in (b"text", b""):
        with pytest.raises(UnreadableImageError):
            client.predict(content)
    with pytest.raises(ImageTooLargeError, match="1000000 pixels"):
        client.predict(empty_png(1000, 1001))
    model.failure = UnsupportedImageError("An icon is not supported.")
    with pytest.raises(UnsupportedImageError, match="icon"):
        client.predict(drawn_digit())


def test_batch_is_in_order_with_errors_in_place(client, tmp_path):
    pictures = [drawn_digit(), tmp_path / "missing.png", b"text", blank_picture()]
    answers = client.predict_batch(pictures, on_error="return")
    kinds = [getattr(answer, "digit", type(answer)) for answer in answers]
    assert kinds == [7, UnreadableImageError, UnreadableImageError, None]
    with pytest.raises(UnreadableImageError):
        client.predict_batch(pictures)
    assert client.predict_batch([]) == []


def test_batch_is_cut_to_the_services_limits(client, service, model, monkeypatch):
    pictures = [drawn_digit(size=(56 + i, 56)) for i in range(10)]
    assert [answer.digit for answer in client.predict_batch(pictures)] == [7] * 10
    assert model.received[-10:] == pictures
    service.requests.clear()
    client.predict_batch(pictures)
    assert len(service.requests) == 5
    monkeypatch.setattr("inkdigits.client._BATCH_BYTES", 10)
    service.requests.clear()
    assert len(client.predict_batch(pictures[:3])) == len(service.requests) == 3


def test_proxys_413_is_a_picture_that_is_too_large(client, service):
    too_large = ("413 Content Too Large", {}, b"<html>")
    service.first = [too_large] * 3
    with pytest.raises(ImageTooLargeError):
        client.predict(drawn_digit())
    answers = client.predict_batch([drawn_digit()] * 2, on_error="return")
    assert [type(answer) for answer in answers] == [ImageTooLargeError, ServedPrediction]


def test_retry_after_is_honoured_and_attempts_end(url, service, waits):
    date = {"Retry-After": "Sat, 28 Nov 2026 00:00:00 GMT"}
    service.first = [("429 Too Many", {"Retry-After": "7"}, BUSY), ("503 No", date, b"<html>")]
    with Client(url, retries=2) as client:
        assert client.predict(drawn_digit()).digit == 7
        assert waits[0] == 7
        assert 0.2 <= waits[1] <= 0.4
        assert len(service.requests) == 3
        service.first = [("503 Unavailable", {}, BUSY)] * 9
        with pytest.raises(Unavailable, match="too_busy"):
            client.predict(drawn_digit())
    assert (len(service.requests), len(waits)) == (6, 4)


@pytest.mark.parametrize(
    ("status", "headers", "error", "known"),
    [
        ("503 Unavailable", {"Retry-After": "3600"}, Unavailable, {}),
        ("500 Internal Server Error", {}, Unavailable, {}),
        ("404 Not Found", {}, RequestDeniedError, {"status": 404, "code": "unknown"}),
    ],
)
def test_what_will_not_pass_soon_is_not_repeated(
    client, service, waits, status, headers, error, known
):
    service.first = [(status, headers, b"<h1>nginx</h1>")]
    with pytest.raises(error, match=None if known else status[:3]) as caught:
        client.predict(drawn_digit())
    assert (len(service.requests), waits) == (1, [])
    assert known.items() <= vars(caught.value).items()


@pytest.mark.parametrize(
    ("silence", "timeout", "message", "asked"),
    [(0, 30, "cannot be reached", 4), (30, 0.2, "in time", 1)],
)
def test_broken_connections_are_repeated_and_silence_is_not(
    waits, silence, timeout, message, asked
):
    released = threading.Event()
    service = answering(lambda connection: released.wait(silence))
    with service as (url, connections), Client(url, timeout=timeout) as client:
        with pytest.raises(Unavailable, match=message):
            client.predict(drawn_digit())
        released.set()
    assert (len(connections), len(waits)) == (asked, asked - 1)


BODIES = (b"<html>", b"[]", b"{}", b'{"ink": null}', b'{"predictions": []}')
WRONG_INK = b'{"prediction": 7, "ink": "data:image/png;base64,AAAA"}'


@pytest.mark.parametrize("body", [*BODIES, WRONG_INK])
def test_answer_of_another_shape_is_unavailable_and_not_a_crash(body):
    with answering(reply(body)) as (url, _), Client(url) as client:
        asked = (client.predict, drawn_digit()), (client.predict_batch, [drawn_digit()])
        for ask, *arguments in (*asked, (client.check,)):
            with pytest.raises(Unavailable, match="same version"):
                ask(*arguments)


def test_check_tells_ready_from_not(client, service):
    assert client.model_version == UNKNOWN_VERSION
    client.check()
    assert client.model_version == "fake-1"
    service.first = [("502 Bad Gateway", {}, b"<html>Bad Gateway</html>")]
    with pytest.raises(Unavailable, match="502"):
        client.check()


def test_key_prefix_and_wish_not_to_be_recorded_are_sent(url, service):
    client = Client(f"{url}/digits/", api_key="a-key", record=False)
    with client, pytest.raises(RequestDeniedError):
        client.predict(drawn_digit())
    (request,) = service.requests
    assert request["PATH_INFO"] == "/digits/predict"
    assert request["HTTP_AUTHORIZATION"] == "Bearer a-key"
    assert "record=false" in request["QUERY_STRING"]


def test_metadata_comes_whole(client, model):
    with pytest.raises(ClientError, match="no metadata"):
        _ = client.metadata
    policy, provenance = DecisionPolicy(0.9, 0.002, 0.95), {"test": {"n": 10000}}
    metadata = ArtifactMetadata("v1", "MNISTClassifier", 1.25, policy, provenance=provenance)
    model.metadata = metadata
    assert client.metadata == metadata


def test_threads_share_a_client(client):
    with ThreadPoolExecutor(8) as threads:
        assert {a.digit for a in threads.map(client.predict, [drawn_digit()] * 40)} == {7}


@pytest.mark.e2e
def test_web_service_starts_without_its_model_and_reads_when_it_is_there(model, waits):
    with served(create_app(Settings(), model)) as url:
        port = int(url.rpartition(":")[2])
    reader = Client(url, retries=1)
    web = create_app(Settings(), reader).test_client()
    picture = {"data": drawn_digit(), "content_type": "image/png"}
    assert web.get("/health/live").status_code == 200
    assert web.get("/health/ready").status_code == 503
    denied = web.post("/predict", **picture)
    assert (denied.status_code, denied.json["error"]["code"]) == (503, "model_unavailable")
    assert denied.headers["Retry-After"] == "1"
    with served(create_app(Settings(), model), port):
        assert web.get("/health/ready").status_code == 200
        assert web.post("/predict", **picture).json["prediction"] == 7
        assert web.get("/health").json["model_version"] == "fake-1"
        form = web.post("/predict", data={"image": (io.BytesIO(drawn_digit()), "a.png")})
        assert form.json["decision"] == "accept"
    reader.close()
    assert web.get("/health/ready").status_code == 503


def test_feedback_says_what_it_is_of_and_repeats_like_any_request(tmp_path):
    with opened(sqlite_url(tmp_path), tmp_path) as store:
        service = Service(FakeReader(), store)
        with served(service) as url, Client(url) as client:
            prediction = client.predict(drawn_digit())
            service.first = [("503 Busy", {"Retry-After": "0"}, BUSY)]
            answer = client.feedback(prediction.id, 3)
            assert answer == {"id": prediction.id, "label": "3", "was_right": False}
            assert client.feedback(prediction.id, None)["label"] is None
            for name, label in ((prediction.id, 10), ("../predict?", 3)):
                with pytest.raises(RequestDeniedError):
                    client.feedback(name, label)
            assert store.get(prediction.id).label is None


def test_number_is_the_readers_own(client, model):
    here, there = model.read(drawn_digit(), length=2), client.read(drawn_digit(), length=2)
    assert (there.text, there.confidence, there.decision) == ("77", 0.8, "accept")
    assert (there.alternatives, there.checks) == (here.alternatives, here.checks)
    assert there.digits[0].box == here.digits[0].box
    assert np.array_equal(there.digits[0].ink, here.digits[0].ink)
    assert (there.kept, len(there.id)) == ("off", 36)
    assert [n.text for n in client.read_regions(drawn_digit(), [(0, 0, 5, 5)] * 2)] == ["77"] * 2
    with pytest.raises(HintError, match="length"):
        client.read(drawn_digit(), length=(2, 1))


def test_number_of_several_digits_comes_with_the_prediction():
    with served(Service(SeesSeveral())) as url, Client(url) as client:
        found = client.predict(drawn_digit())
    assert (found.reason, found.number.text, found.number.id) == ("several_digits", "77", found.id)


def test_numbers_of_many_pictures_keep_their_order_and_errors(client):
    pictures = [drawn_digit(), b"not a picture", blank_picture()]
    first, error, last = client.read_batch(pictures, on_error="return")
    assert (first.text, last.text, last.reason) == ("77", "", "no_ink")
    assert isinstance(error, UnreadableImageError)
    with pytest.raises(UnreadableImageError):
        client.read_batch(pictures)
