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
def test_page_of_the_document_loads_nothing_from_elsewhere_and_its_links_lead_somewhere(app, page):
    client = (app if page == "on" else create_app(Settings(page="off"), FakeReader())).test_client()
    response = client.get("/docs")
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    text = response.text
    assert ["POST /predict" in text, "style=" in text] == [True, False]
    # As the other pages where there are some, and plain where there are none.
    assert ['aria-label="Pages"' in text, "<script" in text] == [page == "on"] * 2
    loaded = re.findall(r'(?:href|src)="([^"#]+)"', text)
    assert "/openapi.json" in loaded
    assert all(link.startswith("/") or link == "data:," for link in loaded)
    assert client.get("/docs/style.css").mimetype == "text/css"
    links, targets = set(re.findall(r'href="#([^"]+)"', text)), re.findall(r' id="([^"]+)"', text)
    assert {"Prediction", "ErrorBody", "Tensor"} <= links <= set(targets)
    assert len(targets) == len(set(targets))
