"""A browser that has the page open, without a browser."""

from __future__ import annotations

import re
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from support.fakes import send_digit

HTML = {"Accept": "text/html,*/*;q=0.8"}
TOKEN = "the-operators-token"
"""Of the operator, in tests."""


class Browser:
    """A browser with its own cookies; the operator's after ``signed_in``."""

    def __init__(self, app: Flask) -> None:
        self.client: FlaskClient = app.test_client()
        page = self.client.get("/", headers=HTML)
        found = re.search(r'name="csrf-token" content="([^"]+)"', page.text)
        assert found is not None
        self.token = {"X-CSRF-Token": found[1]}

    def signed_in(self) -> Browser:
        assert self.post("/sign-in", token=TOKEN).status_code == 303
        return self

    def draw(self, query: str = "") -> dict[str, Any]:
        response = send_digit(self.client, f"/history?{query}", **self.token)
        assert response.status_code == 200
        return dict(response.json)

    def see(self, path: str = "/history") -> str:
        response = self.client.get(path, headers=HTML)
        assert response.status_code == 200
        return response.text.replace("&nbsp;", " ")

    def ids(self, query: str = "") -> list[str]:
        return re.findall(r'data-id="([^"]+)"', self.see(f"/history?{query}"))

    def post(self, path: str, **form: str) -> Any:
        return self.client.post(path, data=form, headers=self.token)

    def label(self, record_id: str, digit: str) -> Any:
        return self.post(f"/history/{record_id}/feedback", label=digit)

    @property
    def cookie(self) -> str:
        found = self.client.get_cookie("inkdigits")
        assert found is not None
        return found.value
