"""``/openapi.json``, and the page that shows it, which is plain where the page is off."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, render_template, request
from flask.typing import ResponseReturnValue

from inkdigits.serving.api.openapi import document
from inkdigits.settings import Settings

_STATIC = Path(__file__).parent / "static"


def blueprint(settings: Settings, version: str) -> Blueprint:
    """Make the routes; the document states the settings' limits and the package's version."""
    sheet = (_STATIC / "style.css").read_text(encoding="utf-8")
    docs = Blueprint("docs", __name__, template_folder="templates")

    @functools.cache
    def described() -> dict[str, Any]:
        # Made when it is first asked for: all routes are there then.
        return document(current_app, settings, version)

    @docs.get("/openapi.json")
    def openapi() -> ResponseReturnValue:
        # Behind a proxy the service may be below a path.
        return {**described(), "servers": [{"url": request.script_root or "/"}]}

    @docs.get("/docs")
    def page() -> ResponseReturnValue:
        parent = "base.html" if "web" in current_app.blueprints else "plain.html"
        return render_template("docs.html", document=described(), parent=parent)

    @docs.get("/docs/style.css")
    def style() -> ResponseReturnValue:
        return Response(sheet, mimetype="text/css")

    return docs
