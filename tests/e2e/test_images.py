"""The health checks of the images, run as Docker runs them, against the real Gunicorn."""

import json
import os
import re
import ssl
import subprocess
import sys

import pytest
from support.certificates import make_certificate
from support.repository import REPOSITORY
from support.server import running

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")


@pytest.fixture(scope="module", params=["http", "https"])
def service(request, tmp_path_factory):
    settings, trusting = {"INKDIGITS_PAGE": "off"}, None
    if request.param == "https":
        certificate, key = make_certificate(tmp_path_factory.mktemp("tls"))
        settings |= {"INKDIGITS_TLS_CERT": str(certificate), "INKDIGITS_TLS_KEY": str(key)}
        trusting = ssl.create_default_context(cafile=certificate)
    with running(tls=trusting, **settings) as started:
        yield started, settings


@pytest.mark.parametrize("file", ["Dockerfile", "deploy/docker/web.Dockerfile"])
def test_health_check_of_an_image_tells_a_service_from_none(service, file):
    started, settings = service
    text = (REPOSITORY / file).read_text()
    _, *command = json.loads(re.search(r"HEALTHCHECK [^\[]*CMD (\[[^\n]*\])", text)[1])
    environment = {**os.environ, **settings, "PORT": str(started.port)}

    def status():
        run = subprocess.run([sys.executable, *command], env=environment, capture_output=True)
        return run.returncode

    assert status() == 0
    environment["PORT"] = "9"
    assert status() != 0
