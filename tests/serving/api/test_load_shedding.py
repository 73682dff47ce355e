import gc
import os
import socket
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from support.answers import code_of
from support.fakes import FakeReader, drawn_digit
from support.processes import PATIENCE, wait_until
from support.scrape import parse, value
from support.server import running

from inkdigits.errors import DeadlineExceededError, ImageError
from inkdigits.serving.api import load_shedding
from inkdigits.serving.api.load_shedding import _connection_state
from inkdigits.serving.api.requests import current
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


class Busy(FakeReader):
    """Reads on only when it is allowed to, once ``holds`` is set."""

    def __init__(self):
        super().__init__()
        self.holds = False
        self.begun = []
        self.may_end = threading.Event()

    def predict(self, picture, *, risk=None):
        self.begun.append(picture)
        assert not self.holds or self.may_end.wait(PATIENCE)
        return super().predict(picture, risk=risk)


@pytest.fixture
def reader():
    return Busy()


def make_app(reader, **settings):
    return create_app(Settings(page="off", **settings), reader)


def predict(app, **how):
    return app.test_client().post("/predict", data=drawn_digit(), content_type="image/png", **how)


def waiting(app):
    return value(parse(app.test_client().get("/metrics").text), "inkdigits_requests_waiting")


@contextmanager
def held(app, reader):
    """One request is being read, and takes until the end of the block."""
    reader.holds = True
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, app)
        wait_until(lambda: len(reader.begun) == 2)  # the warm-up has begun too
        try:
            yield first
        finally:
            reader.may_end.set()


def test_as_many_pictures_are_read_at_once_as_there_are_slots_and_the_others_wait(reader):
    app = make_app(reader, slots=2)
    reader.holds = True
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(predict, app) for _ in range(6)]
        wait_until(lambda: waiting(app) == 4)
        wait_until(lambda: len(reader.begun) == 1 + 2)  # the warm-up has begun too
        reader.may_end.set()
        assert [future.result().status_code for future in asked] == [200] * 6
    assert waiting(app) == 0


def test_request_that_has_waited_its_time_is_denied_and_told_when_to_come_again(reader):
    app = make_app(reader, slots=1, deadline=0.2)
    client = app.test_client()
    picture = {"name": "picture", "shape": [1], "datatype": "BYTES", "data": ["QQ=="]}
    with held(app, reader) as first:
        denied = predict(app)
        assert code_of(denied) == (429, "too_busy")
        tensor = client.post("/v2/models/inkdigits/infer", json={"inputs": [picture]})
        assert (tensor.status_code, "waited" in tensor.json["error"]) == (429, True)
        assert denied.headers["Retry-After"] == tensor.headers["Retry-After"] == "1"
        for spared in ("/health", "/health/ready", "/metrics", "/api", "/v2"):
            assert client.get(spared).status_code == 200
    assert first.result().status_code == predict(app).status_code == 200


def test_request_that_has_waited_for_a_thread_until_its_deadline_is_not_read(reader, monkeypatch):
    app = make_app(reader)
    for waited, status in ((31.0, 429), (29.0, 200)):
        monkeypatch.setattr(load_shedding, "_connection_state", lambda _, s=waited: (True, s))
        assert predict(app).status_code == status
        assert app.test_client().get("/health").status_code == 200
    assert len(reader.received) == 2


def test_picture_that_took_longer_than_the_deadline_to_arrive_is_not_read(reader):
    app = make_app(reader)
    slot = app.extensions["inkdigits.reader"].slot
    with app.test_request_context("/predict", method="POST"):
        asked = current()
        asked.began = time.perf_counter() - 31
        with pytest.raises(DeadlineExceededError, match="took longer than 30 s"), slot():
            pytest.fail("it was read")
        asked.began += 2
        with slot() as ready:
            assert ready is reader


def test_model_that_was_replaced_takes_no_memory_any_more():
    former = FakeReader()
    app, gone = make_app(former), weakref.ref(former)
    app.extensions["inkdigits.reader"].use(FakeReader())
    del former
    gc.collect()
    assert gone() is None


def test_slot_is_free_again_after_an_error(reader):
    app = make_app(reader, slots=1, deadline=0.2)
    for failure, status in ((ImageError("no"), 400), (RuntimeError("oops"), 500), (None, 200)):
        reader.failure = failure
        assert predict(app).status_code == status


@pytest.fixture
def pair():
    """The two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield near, far


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_request_whose_client_has_gone_while_it_waited_is_not_read(reader, pair):
    near, far = pair
    app = make_app(reader, slots=1)
    with held(app, reader), ThreadPoolExecutor(1) as pool:
        second = pool.submit(predict, app, environ_overrides={"gunicorn.socket": far})
        wait_until(lambda: waiting(app) == 1)
        assert _connection_state(far)[0]
        near.close()
        wait_until(lambda: not _connection_state(far)[0])
        reader.may_end.set()
        assert code_of(second.result()) == (499, "client_gone")
    assert len(reader.received) == 2
    assert predict(app).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_time_since_a_request_arrived_is_known(pair):
    near, far = pair
    near.sendall(b"request")
    assert far.recv(100, socket.MSG_PEEK)
    wait_until(lambda: _connection_state(far)[1] > 0.1)
    near.sendall(b"more")
    far.close()
    assert _connection_state(far) == (True, 0.0)


@pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")
@pytest.mark.e2e
def test_service_that_stops_answers_what_waits_for_a_slot_and_for_a_thread():
    settings = {"INKDIGITS_THREADS": "2", "INKDIGITS_SLOTS": "1"}
    with running("--delay", "0.5", **settings) as service, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(service.predict) for _ in range(4)]
        # One is being read by now, most likely; all are to be answered in any case.
        time.sleep(0.4)
        service.process.terminate()
        assert [future.result()[0] for future in asked] == [200] * 4
        assert service.process.wait(PATIENCE) == 0
