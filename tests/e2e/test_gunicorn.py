"""The real Gunicorn, as a process of its own on a free port of the loopback interface."""

import contextlib
import http.client
import json
import os
import signal
import ssl

import pytest
from support.certificates import make_certificate
from support.fakes import drawn_digit, empty_png
from support.processes import PATIENCE, wait_until
from support.server import REAL, free_port, run_to_its_end, running

from inkdigits.serving.api.keys import digest_of

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")


POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"


@pytest.fixture(scope="module")
def shared():
    """A service for what leaves it as it was."""
    with running() as service:
        yield service


def test_sigterm_lets_the_request_in_flight_finish_and_the_log_is_one_json_object_a_line():
    with running("--delay", "1") as service, contextlib.closing(service.connect()) as connection:
        connection.request("POST", "/predict", drawn_digit(), {"Content-Type": "image/png"})
        # The health check is answered by another thread after the request was taken up.
        assert service.ask()[0] == 200
        service.process.terminate()
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["prediction"]) == (200, 7)
        assert service.process.wait(PATIENCE) == 0
    entries = [json.loads(line) for line in service.lines]
    (request,) = (entry for entry in entries if entry["message"] == "request")
    assert (request["path"], request["status"], request["decision"]) == ("/predict", 200, "accept")


def test_service_says_where_it_is_and_ctrl_c_stops_it_while_it_takes_up_connections():
    settings = {"INKDIGITS_THREADS": "8", "INKDIGITS_GRACEFUL_TIMEOUT": "600"}
    with running(INKDIGITS_LOG_FORMAT="text", **settings) as service:
        # It is printed as soon as the first worker is ready, and that may be seen before it.
        wait_until(lambda: any(line.startswith("Inkdigits ") for line in service.lines))
        (greeting,) = (line for line in service.lines if line.startswith("Inkdigits "))
        assert f"on http://127.0.0.1:{service.port} — Ctrl-C stops" in greeting
        for _ in range(6):
            service.ask()
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.process.wait(PATIENCE) == 0


def test_every_worker_gets_kept_alive_connections():
    with running(INKDIGITS_WORKERS="2") as service, contextlib.ExitStack() as stack:
        workers = set()

        def both_answer():
            connection = stack.enter_context(contextlib.closing(service.connect()))
            connection.request("GET", "/health")
            workers.add(json.loads(connection.getresponse().read())["model_version"])
            return len(workers) == 2

        wait_until(both_answer)


def test_body_over_the_limit_is_refused_and_the_service_goes_on():
    with running(INKDIGITS_MAX_BYTES="100000") as service:
        for body in (b"\0" * 150_000, iter([b"\0" * 75_000] * 2)):
            status, answer = service.send(body)
            assert (status, answer["error"]["code"]) == (413, "body_too_large")
        assert service.predict()[0] == 200


@pytest.mark.parametrize(
    "chunks",
    [
        b"0x4\r\nabcd\r\n0\r\n\r\n",
        b"-4\r\nabcd\r\n0\r\n\r\n",
        b"4\r\nabcdXX0\r\n\r\n",
        b"4\r\nabcd\r\n0\r\nContent-Length: 5\r\n\r\n",
    ],
)
@pytest.mark.parametrize("line", [b"POST /predict", b"POST /nowhere", b"GET /health"])
@pytest.mark.parametrize("host", [b"localhost", b"unknown"])
def test_malformed_chunks_are_the_clients_fault_whatever_else_is_wrong(shared, line, host, chunks):
    head = line + b" HTTP/1.1\r\nHost: " + host + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    with shared.raw(head + chunks) as client:
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 400
        assert json.loads(response.read())["error"]["code"] == "bad_request"
        # The server adds no answer of its own.
        assert client.recv(1) == b""
    assert shared.predict()[0] == 200


def test_client_that_announces_more_than_it_sends_does_not_hold_a_thread():
    with running("--read-timeout", "1", INKDIGITS_THREADS="1") as service:
        with service.raw(POST + b"Content-Length: 1000\r\n\r\nabc") as liar:
            assert liar.recv(4096).startswith(b"HTTP/1.1 400 ")
        with service.raw(b"GET /health HTTP/1.1\r\nHo"):
            assert service.predict()[0] == 200


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["--fail", "at start"], {}, "Error: no artifact at models/missing.onnx"),
        (["--fail", "silently"], {}, "ended with exit code 9"),
        ([], {"DATABASE_URL": "mysql://db/inkdigits"}, "Error: DATABASE_URL begins with 'mysql'"),
        ([], {"INKDIGITS_API_KEYS_FILE": os.devnull}, "the API keys file /dev/null has no key"),
    ],
)
def test_what_cannot_be_used_is_an_error_at_start_in_one_line(arguments, settings, message):
    result = run_to_its_end(free_port(), *arguments, **settings)
    (line,) = result.stderr.splitlines()
    assert (result.returncode, message in line) == (1, True), line


def test_model_that_does_not_load_in_the_workers_stops_the_service():
    result = run_to_its_end(free_port(), "--fail", "in workers", INKDIGITS_LOG_FORMAT="text")
    assert result.returncode == 3
    assert "a worker cannot start: no artifact at models/missing.onnx" in result.stderr
    assert "Traceback" not in result.stderr


def test_certificate_makes_it_speak_https(tmp_path):
    certificate, key = map(str, make_certificate(tmp_path))
    trusting = ssl.create_default_context(cafile=certificate)
    settings = {"INKDIGITS_LOG_FORMAT": "text", "INKDIGITS_THREADS": "1"}
    settings |= {"INKDIGITS_TLS_CERT": certificate, "INKDIGITS_TLS_KEY": key}
    with running("--read-timeout", "1", tls=trusting, **settings) as service:
        assert service.predict()[1]["prediction"] == 7
        with contextlib.closing(service.connect()) as connection:
            connection.request("GET", "/health")
            assert connection.getresponse().headers["Strict-Transport-Security"]
        # One who does not speak it, and one who says nothing, take nothing from the others.
        for sent in (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b""):
            with service.raw(sent):
                assert service.predict()[0] == 200
        assert any(f"https://127.0.0.1:{service.port}" in line for line in service.lines)


def test_service_that_others_reach_says_that_it_asks_for_no_key(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"ada:{digest_of('a-key')}\n")
    with running(INKDIGITS_HOST="0.0.0.0") as service:
        assert any("no API key is set" in line for line in service.lines)
    with running(INKDIGITS_HOST="0.0.0.0", INKDIGITS_API_KEYS_FILE=str(keys)) as service:
        assert not any("no API key is set" in line for line in service.lines)
        assert service.predict()[0] == 401


def test_real_reader_serves_and_outlives_whatever_it_is_sent():
    truncated = drawn_digit("JPEG", (400, 400))[:-1000]
    settings = {"INKDIGITS_WORKERS": "2", "INKDIGITS_GRACEFUL_TIMEOUT": "600"}
    with running(program=REAL, **settings) as service:
        status, answer = service.predict()
        assert (status, answer["prediction"] in range(10)) == (200, True)
        assert sum(answer["probabilities"]) == pytest.approx(1.0)
        assert service.ask()[1]["model_version"] == answer["model_version"]
        for picture, status, code in [
            (b"\x00garbage", 400, "not_an_image"),
            (b"just text\n", 400, "not_an_image"),
            (b"", 400, "empty_body"),
            (truncated, 400, "not_an_image"),
            (empty_png(10_000, 5_000), 413, "image_too_large"),
            (empty_png(60_000, 60_000), 413, "image_too_large"),
        ]:
            refused, answer = service.send(picture)
            assert (refused, answer["error"]["code"]) == (status, code)
        assert service.predict()[0] == 200
        # ONNX Runtime loaded before the fork would keep the workers from ending.
        service.process.terminate()
        assert service.process.wait(PATIENCE) == 0
    assert "Traceback" not in "".join(service.lines)
