import re

import pytest
from support.fakes import FakeReader

from inkdigits.serving.api.access import CONTENT_SECURITY_POLICY
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings


def test_document_below_a_path_names_it(app):
    document = app.test_client().get("/openapi.json", base_url="http://localhost/digits").json
    assert document["servers"] == [{"url": "/digits"}]


@pytest.mark.parametrize("page", ["on", "off"])
def test_page_of_the_document_runs_nothing_and_loads_nothing_from_elsewhere(app, page):
    client = (app if page == "on" else create_app(Settings(page="off"), FakeReader())).test_client()
    response = client.get("/docs")
    assert response.status_code == 200
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    text = response.text
    assert "POST /predict" in text
    assert "<script" not in text
    assert "style=" not in text
    loaded = re.findall(r'(?:href|src)="([^"#]+)"', text)
    assert set(loaded) == {"/docs/style.css", "/openapi.json", "data:,"}
    assert client.get("/docs/style.css").mimetype == "text/css"


def test_every_link_within_the_page_leads_somewhere(app):
    text = app.test_client().get("/docs").text
    links, targets = set(re.findall(r'href="#([^"]+)"', text)), re.findall(r' id="([^"]+)"', text)
    assert {"Prediction", "ErrorBody", "Tensor"} <= links
    assert links <= set(targets)
    assert len(targets) == len(set(targets))
