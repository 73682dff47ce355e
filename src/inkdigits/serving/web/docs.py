"""What the service says of itself: its endpoints, its model, and the OpenAPI document as a page."""

from __future__ import annotations

import functools
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, make_response, render_template, request
from flask.typing import ResponseReturnValue

from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.serving.api.error_handlers import error_response, wants_html
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.openapi import OPERATIONS, document, routes
from inkdigits.settings import Settings


def blueprint(settings: Settings, served: ServedReader, version: str) -> Blueprint:
    """Make the routes; ``/`` is the page where there is one, and plain where it is off."""
    sheet = (Path(__file__).parent / "static" / "style.css").read_text(encoding="utf-8")
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

    @docs.get("/api")
    def index() -> ResponseReturnValue:
        return {
            "name": "inkdigits",
            "version": version,
            "model_version": served.model_version,
            "endpoints": {
                f"{how} {rule}": OPERATIONS[how, rule].summary for how, rule in routes(current_app)
            },
        }

    @docs.get("/api/model")
    def model() -> ResponseReturnValue:
        metadata: ArtifactMetadata | None = getattr(served.current, "metadata", None)
        if metadata is None:
            return error_response(404, "not_found", "This model has no metadata.")
        return asdict(metadata)

    @docs.get("/")
    def root() -> ResponseReturnValue:
        # Programs that do not care, such as curl, get the index; browsers ask for HTML.
        has_page = "web" in current_app.blueprints and wants_html()
        response = make_response(
            render_template("draw.html", policy=served.policy) if has_page else index()
        )
        response.headers.add("Vary", "Accept")
        return response

    return docs
