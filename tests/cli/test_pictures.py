import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from support.commands import run
from support.pictures import encoded, seven

from inkdigits.cli import pictures
from inkdigits.ink.decode import DEFAULT_LIMITS


class Web(BaseHTTPRequestHandler):
    """Serves a picture, redirects to it and to itself, and what cannot be read."""

    unread = False

    def do_GET(self):
        moved = {
            "/moved": "/seven.png",
            "/long": "/seven.png",
            "/round": "/round",
            "/file": "file:///etc/passwd",
        }
        moved["/odd"] = "http://[odd"
        self.send_response(302 if self.path in moved else 404 if self.path == "/no" else 200)
        self.send_header("Location", moved.get(self.path, ""))
        self.end_headers()
        if self.path == "/long":
            try:
                for _ in range(64):
                    self.wfile.write(bytes(2**20))
            except OSError:
                Web.unread = True
            return
        large = b"x" * (DEFAULT_LIMITS.max_bytes + 1)
        self.wfile.write(large if self.path == "/large" else encoded(seven()))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def web():
    with HTTPServer(("127.0.0.1", 0), Web) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_picture_is_read_from_an_address_and_from_standard_input(web):
    for source in (f"{web}/seven.png", f"{web}/moved", "-"):
        line = run("predict", source, answer=encoded(seven())).stdout.splitlines()[1]
        assert line.split()[:2] == [source, "7"]
    assert " 7 " in run("read", f"{web}/moved").stdout
    assert "7" in run("read", "-", answer=encoded(seven())).stdout


def test_address_without_a_picture_is_an_error_of_that_picture(web, monkeypatch):
    wrong = {
        "/no": "error: the server returned status 404",
        "/round": "redirects more than 5 times",
        "/file": "neither http nor https",
        "/odd": "redirects to an invalid URL",
        "/large": "limit",
    }
    done = run("predict", *(web + path for path in wrong), f"{web}/seven.png", exit_code=1)
    for line, message in zip(done.stdout.splitlines()[1:], [*wrong.values(), " 7 "], strict=True):
        assert message in line
    assert "5 of 6 pictures cannot be read" in done.stderr
    monkeypatch.setattr(pictures, "_SECONDS", 0)
    assert "error: the download took" in run("predict", f"{web}/seven.png", exit_code=1).stdout


def test_body_of_a_redirect_is_not_read(web):
    assert " 7 " in run("predict", f"{web}/long").stdout
    assert Web.unread


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "out.csv", "--shard", "4/4"], "must be I/N"),
        (["--out", "out.csv", "--address", "auto"], "needs --engine ray"),
        (["--out", "out.csv", "--engine", "ray", "--workers", "2"], "is for local processes"),
        (["--out", "out.csv", "https://example.org/7.png"], "standard input or http"),
        (["--shard", "0/2"], "need --out"),
    ],
)
def test_bulk_options_that_do_not_fit_say_what_does(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((2, 28, 28), np.uint8))
    for command in ("predict", "read"):
        assert message in run(command, "a.npy", *arguments, exit_code=2).stderr
    assert "nothing to merge" in run("merge", "out.csv", exit_code=1).stderr
