"""The service behind the real nginx: slow clients, a path prefix, HTTPS, and errors in JSON."""

import contextlib
import json
import os
import re
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.certificates import make_certificate
from support.fakes import drawn_digit
from support.nginx import UNDER_A_PATH, nginx_before
from support.server import Site, free_port, running

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")

Before = Callable[..., Site]
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    settings = {"INKDIGITS_THREADS": "2", "INKDIGITS_TRUSTED_PROXIES": "127.0.0.1"}
    data = str(tmp_path_factory.mktemp("data"))
    with running(**settings, INKDIGITS_DATA_DIR=data) as started:
        yield started


@pytest.fixture
def before(service, tmp_path):
    """Starts an nginx before the service, or before another port."""
    with contextlib.ExitStack() as stack:

        def start(changes=None, port=service.port):
            return Site(stack.enter_context(nginx_before(port, tmp_path / "nginx", changes)))

        yield start


def page(service, path="/", **headers):
    with contextlib.closing(service.connect()) as connection:
        connection.request("GET", path, headers={"Accept": "text/html", **headers})
        response = connection.getresponse()
        return response, response.read().decode()


def test_slow_senders_hold_nobody_up(before):
    front = before()
    head = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: image/png\r\n"
    with contextlib.ExitStack() as stack:
        for sent in [head, head + b"Content-Length: 1000\r\n\r\nabc"] * 32:
            stack.enter_context(front.raw(sent))
        for _ in range(5):
            assert front.predict()[1]["prediction"] == 7


def test_page_and_its_cookies_stay_under_their_path(before):
    front = before(UNDER_A_PATH)
    response, text = page(front, "/digits/")
    assert response.status == 200
    links = re.findall(r'(?:href|src|action)="([^"#][^"]*)"', text)
    assert len(links) > 5
    for link in links:
        assert link.startswith("/digits/"), link
        assert page(front, link.replace("&amp;", "&"))[0].status == 200
    cookie = response.headers["Set-Cookie"]
    assert ("Path=/digits" in cookie, "Secure" in cookie) == (True, False)
    token = re.search(r'name="csrf-token" content="([^"]+)"', text)
    assert token is not None
    headers = {**PNG, "Cookie": cookie.partition(";")[0], "X-CSRF-Token": token[1]}
    for path, sent in (("/digits/history", headers), ("/digits/predict", PNG)):
        status, answer = front.ask("POST", path, body=drawn_digit(), headers=sent)
        assert (status, answer["prediction"]) == (200, 7)


@pytest.mark.parametrize("has_host", [True, False], ids=["our configuration", "nginx's own Host"])
def test_page_may_post_whatever_host_nginx_passes_on(before, has_host):
    hosts = ["proxy_set_header Host $http_host;", "proxy_set_header X-Forwarded-Host $http_host;"]
    front = before({} if has_host else dict.fromkeys(hosts, ""))
    own = {**PNG, "Origin": f"http://127.0.0.1:{front.port}"}
    assert front.ask("POST", "/predict", body=drawn_digit(), headers=own)[0] == 200
    foreign = {**PNG, "Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert front.ask("POST", "/predict", body=drawn_digit(), headers=foreign)[0] == 403


def test_https_that_ends_at_nginx_makes_cookies_secure(before, tmp_path):
    certificate, key = make_certificate(tmp_path)
    port = free_port()
    changes = {
        "# listen 8443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "# ssl_certificate     /etc/nginx/tls/fullchain.pem;": f"ssl_certificate {certificate};",
        "# ssl_certificate_key /etc/nginx/tls/privkey.pem;": f"ssl_certificate_key {key};",
    }
    before(changes)
    response, _ = page(Site(port, ssl.create_default_context(cafile=certificate)))
    assert response.status == 200
    assert "Secure" in response.headers["Set-Cookie"]
    assert response.headers["Strict-Transport-Security"]


def test_errors_of_nginx_itself_are_json_too(before):
    front = before({"client_max_body_size 10m": "client_max_body_size 20k"})
    status, answer = front.send(b"\0" * 30_000)
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    for sent, status_line in [
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 "),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", b"HTTP/1.1 431 "),
    ]:
        with front.raw(sent) as connection, connection.makefile("rb") as stream:
            connection.shutdown(socket.SHUT_WR)
            head, _, body = stream.read().partition(b"\r\n\r\n")
        assert head.startswith(status_line), head
        assert b"Content-Type: application/json" in head
        assert json.loads(body)["error"]["code"]
    # What the service answers passes as it is.
    status, answer = front.send(b"no picture")
    assert (status, answer["error"]["code"]) == (400, "not_an_image")


def test_post_whose_replica_dies_meanwhile_is_answered_by_the_next(before, service):
    with socket.create_server(("127.0.0.1", 0)) as dying, ThreadPoolExecutor() as pool:

        def die():
            connection, _ = dying.accept()
            with connection:
                return connection.recv(1000)

        port = dying.getsockname()[1]
        received = pool.submit(die)
        first = f"server 127.0.0.1:{port};"
        front = before({first: f"{first} server 127.0.0.1:{service.port};"}, port)
        for _ in range(4):
            status, answer = front.predict()
            assert (status, answer["prediction"]) == (200, 7)
        assert received.result().startswith(b"POST /predict")


def test_service_that_is_away_or_late_is_said_to_be(before, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        front = before({"proxy_read_timeout 60s": "proxy_read_timeout 1s"}, silent.getsockname()[1])
        status, answer = front.predict()
        assert (status, answer["error"]["code"]) == (504, "timeout")
    status, answer = front.predict()
    assert (status, answer["error"]["code"]) == (503, "unavailable")
