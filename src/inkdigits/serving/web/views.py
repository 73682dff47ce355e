"""The page's routes. What they show of the log is this browser's own, or all for the operator."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import math
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, abort, redirect, render_template, request, send_file, url_for
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue

from inkdigits.errors import (
    ArtifactError,
    ClientError,
    MissingFieldError,
    QueryError,
    StoreError,
    StoreUnavailableError,
    WrongShapeError,
)
from inkdigits.log.export import Format
from inkdigits.log.queries import Filters
from inkdigits.log.record import ANYONE, InputKind, Record
from inkdigits.log.statistics import Bucket
from inkdigits.log.store import Store
from inkdigits.model.artifact import ArtifactMetadata, shipped_artifact, shipped_version
from inkdigits.serving.api.access import SAFE_METHODS, Gate
from inkdigits.serving.api.feedback import apply_feedback
from inkdigits.serving.api.keys import OPERATOR
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.predict import ink_url, keep_and_answer
from inkdigits.serving.api.requests import parse_pictures, parse_wish
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.serving.web import charts
from inkdigits.serving.web.query import filters_of, link_of
from inkdigits.serving.web.review import add_review
from inkdigits.serving.web.session import Operator, brings_csrf_token, browser, csrf_token
from inkdigits.settings import Settings

PAGE_SIZE: Final = 24
"""Predictions on one page of the history."""

WORDS: Final = {
    "accept": "Sure",
    "review": "Please check",
    "not_a_digit": "Not a digit",
    "several_digits": "Several digits",
    "not_a_number": "Not a number",
    "several_lines": "Several lines",
    "no_ink": "No ink",
    "cut_off": "Cut off by the edge",
    "unreadable": "Unclear",
    "blank": "No ink found",
}
"""A decision, or the reason of a rejection, in words."""

_SPANS: Final[dict[str, tuple[str, timedelta | None, Bucket]]] = {
    "day": ("24 hours", timedelta(hours=23), "hour"),
    "month": ("30 days", timedelta(days=29), "day"),
    "all": ("All", None, "day"),
}
_KINDS: Final[dict[str, InputKind]] = {"drawn": "drawn", "uploaded": "uploaded"}
_TYPES: Final[dict[Format, tuple[str, str]]] = {
    "csv": ("inkdigits.csv", "text/csv"),
    "parquet": ("inkdigits.parquet", "application/vnd.apache.parquet"),
}
# Bytes of an export that are held in memory before it goes to a temporary file.
_EXPORT_MEMORY: Final = 8 * 2**20
_STATIC: Final = Path(__file__).parent / "static"

logger = logging.getLogger(__name__)


def blueprint(
    settings: Settings,
    reader: ServedReader,
    store: Store,
    metrics: Metrics,
    operator: Operator,
    gate: Gate,
) -> Blueprint:
    """Make the page's routes."""
    web = Blueprint("web", __name__, static_folder="static", template_folder="templates")
    _prepare(web, reader, store, operator, settings)
    _add_drawing(web, reader, store, metrics)
    _add_history(web, store, operator, settings)
    _add_overviews(web, reader, store, operator)
    _add_sign_in(web, store, operator, gate)
    add_review(web, store, operator, settings)
    return web


def _prepare(
    web: Blueprint, reader: ServedReader, store: Store, operator: Operator, settings: Settings
) -> None:
    """Add what is the same for all pages: the token against forgery, and what templates use."""
    static_version = _digest_of_static()
    package = importlib.metadata.metadata("inkdigits")
    urls = dict(url.split(", ", 1) for url in package.get_all("Project-URL") or ())

    @web.before_request
    def deny_forged() -> None:
        if request.method in SAFE_METHODS or operator.bears_token(request):
            return
        if not brings_csrf_token(request):
            abort(403, "The page was open for too long, or cookies are off. Reload the page.")

    def asset(name: str) -> str:
        return url_for("web.static", filename=name, v=static_version)

    @web.app_context_processor
    def in_every_template() -> dict[str, Any]:
        return {
            "csrf_token": csrf_token,
            "is_operator": operator.is_here(request),
            "reviewer": operator.reviewer(request),
            "has_operator": operator.exists,
            "can_sign_in": store.available,
            "asset": asset,
            "package_version": package["Version"],
            "source_url": urls.get("Source") or urls.get("Repository"),
            "model_version": reader.model_version,
            "settings": settings,
            "words": WORDS,
            "ink_url": ink_url,
        }

    @web.app_template_filter()
    def percent(share: float) -> str:
        # Rounded down: "100.0 %" is for what is certain, and nothing read from a picture is.
        return f"{int(share * 1000) / 10:.1f}\N{NO-BREAK SPACE}%"

    @web.app_template_filter()
    def at_most(share: float) -> str:
        # Rounded up: it is a bound.
        return f"{math.ceil(share * 10_000 - 1e-9) / 100:.2f}\N{NO-BREAK SPACE}%"

    @web.record_once
    def compile_first_page(state: BlueprintSetupState) -> None:
        # Here, and not by the first request of a worker.
        for name in ("base.html", "draw.html"):
            state.app.jinja_env.get_template(name)


def _add_drawing(web: Blueprint, reader: ServedReader, store: Store, metrics: Metrics) -> None:
    @web.post("/history")
    def record() -> ResponseReturnValue:
        """Read a finished drawing and keep it, in place of the one that it continues."""
        kind = _KINDS.get(request.args.get("kind", "drawn"))
        if kind is None:
            raise QueryError("The kind must be drawn or uploaded.")
        wish, owner = parse_wish(request), browser()
        picture, _ = parse_pictures(request, wish, 1)
        if not isinstance(picture, bytes):
            raise WrongShapeError("Send one picture at a time.")
        with reader.slot() as ready:
            prediction = ready.predict(picture, risk=wish.risk)
        number = prediction.number
        # A number is kept as what it was read as, and not as one digit that was rejected.
        log = store if number is None else None
        body = keep_and_answer(log, prediction, picture, kind=kind, owner=owner, with_ink=True)
        if number is None:
            metrics.count_prediction(prediction)
            reader.offer(body["id"], picture, prediction)
        else:
            metrics.count_number(number)
            how: Any = {"input_kind": kind, "owner": owner, "picture": picture}
            how |= {"record_id": body["id"], "whole": prediction.ink}
            body["kept"] = store.keep(Record.of(number, **how))
        replaced = request.args.get("replaces")
        if body["kept"] == "database" and replaced:
            _delete_unlabelled(store, replaced, owner)
        return body


def _add_history(web: Blueprint, store: Store, operator: Operator, settings: Settings) -> None:
    has_parquet = importlib.util.find_spec("pyarrow") is not None

    @web.get("/history")
    def history() -> ResponseReturnValue:
        filters = filters_of(request.args, operator.scope(request))
        cursor = request.args.get("cursor") or None
        sort: Any = request.args.get("sort") or "time"
        try:
            page = store.page(filters, cursor=cursor, limit=PAGE_SIZE, sort=sort)
            count = store.count(filters)
            total = store.count(Filters(owner=filters.owner)) if link_of(request.args) else count
        except StoreUnavailableError:
            return render_template("unavailable.html", what="The history"), 503
        return render_template(
            "history.html",
            page=page,
            count=count,
            total=total,
            query=request.args,
            link=lambda **more: link_of(request.args, **more),
            formats=[form for form in _TYPES if form != "parquet" or has_parquet],
        )

    @web.post("/history/<record_id>/feedback")
    def feedback(record_id: str) -> ResponseReturnValue:
        if "label" not in request.form:
            raise MissingFieldError('The form has no field "label"; nothing was changed.')
        label = request.form["label"] or None
        answer = apply_feedback(store, record_id, label, "page", operator.scope(request))
        return dict(answer) if _is_script() else _back_to_history()

    @web.post("/history/<record_id>/delete")
    def delete(record_id: str) -> ResponseReturnValue:
        store.delete(record_id, owner=operator.scope(request))
        return {"deleted": 1} if _is_script() else _back_to_history()

    @web.post("/history/delete")
    def delete_all() -> ResponseReturnValue:
        if request.form.get("sure") != "yes":
            abort(400, "Nothing was deleted. Tick the box to confirm.")
        deleted = store.delete_all(owner=operator.scope(request))
        return {"deleted": deleted} if _is_script() else redirect(url_for("web.history"), 303)

    @web.get("/history/export")
    def export() -> ResponseReturnValue:
        form = request.args.get("format", "csv")
        if form not in _TYPES:
            raise QueryError(f"The format must be one of {', '.join(_TYPES)}, not {form!r}.")
        filters = filters_of(request.args, operator.scope(request))
        # In a container's folder for temporary files a long log has no room. send_file closes it,
        # and closing removes it.
        folder = str(settings.outbox_folder)
        file = tempfile.SpooledTemporaryFile(_EXPORT_MEMORY, dir=folder)  # noqa: SIM115
        store.export(form, file, filters)
        file.seek(0)
        name, kind = _TYPES[form]
        return send_file(file, mimetype=kind, as_attachment=True, download_name=name)


def _add_overviews(web: Blueprint, reader: ServedReader, store: Store, operator: Operator) -> None:
    @web.get("/dashboard")
    def dashboard() -> ResponseReturnValue:
        span = request.args.get("span", "month")
        if span not in _SPANS:
            raise QueryError(f"The span must be one of {', '.join(_SPANS)}, not {span!r}.")
        _, length, bucket = _SPANS[span]
        since = None if length is None else datetime.now(UTC) - length
        owner = operator.scope(request)
        try:
            figures = store.statistics(since=since, owner=owner, bucket=bucket)
            audit = store.reviews.audit(reader.model_version) if owner is ANYONE else None
        except StoreUnavailableError:
            return render_template("unavailable.html", what="The dashboard"), 503
        return render_template(
            "dashboard.html",
            figures=figures,
            audit=audit,
            risk=reader.stated_risk,
            span=span,
            spans={name: words for name, (words, _, _) in _SPANS.items()},
            columns=charts.columns(figures.over_time, bucket),
            shades=charts.shades(figures.confusion),
        )

    @web.get("/model")
    def model() -> ResponseReturnValue:
        metadata: ArtifactMetadata | None
        try:
            metadata = getattr(reader.current, "metadata", None)
        except (ClientError, ArtifactError):
            return render_template("unavailable.html", what="The model"), 503
        return render_template(
            "model.html",
            metadata=metadata,
            version=reader.model_version,
            **(_figures() if reader.model_version == shipped_version() else {}),
        )


@functools.cache
def _figures() -> dict[str, Any]:
    """Return what the model page shows of the shipped model's run and robustness."""
    files = (shipped_artifact().with_name(f"{name}.json") for name in ("run", "robustness"))
    run, robustness = (json.loads(path.read_text(encoding="utf-8")) for path in files)
    history, sets = run["history"], robustness["mnist_c"]["digits"]
    losses = [[epoch[f"{part}_loss"] for epoch in history] for part in ("train", "validation")]
    shares = [100 * epoch["validation_accuracy"] for epoch in history]
    return {
        "run": run,
        "robustness": robustness,
        "loss": charts.lines(losses, "{:.2g}", logarithmic=True),
        "accuracy": charts.lines([shares], "{:.1f} %"),
        "shades": charts.shades(run["test"]["confusion_matrix"]),
        "reliability": charts.reliability(sets),
    }


def _add_sign_in(web: Blueprint, store: Store, operator: Operator, gate: Gate) -> None:
    @web.route("/sign-in", methods=["GET", "POST"])
    def sign_in() -> ResponseReturnValue:
        if not operator.exists:
            abort(404)
        if not store.available:
            return render_template("unavailable.html", what="The sign-in"), 503
        if request.method == "GET":
            return render_template("sign_in.html", failed=False)
        gate.admit_sign_in(request)
        name = operator.name_of(request.form.get("token", ""))
        if name is None:
            return render_template("sign_in.html", failed=True), 403
        operator.sign_in(name)
        return redirect(url_for("web.history" if name == OPERATOR else "web.review"), 303)

    @web.post("/sign-out")
    def sign_out() -> ResponseReturnValue:
        operator.sign_out()
        return redirect(url_for("web.history"), 303)


def _delete_unlabelled(store: Store, record_id: str, owner: str) -> None:
    """Delete what a finished drawing replaces, unless it has feedback."""
    try:
        if store.get(record_id, owner=owner).label is None:
            store.delete(record_id, owner=owner)
    except StoreError as error:
        logger.info("a replaced drawing stays", extra=fields(error=error))


def _is_script() -> bool:
    # Browsers send Basic by themselves if the service asks for API keys.
    is_bearer = request.authorization is not None and request.authorization.type == "bearer"
    return is_bearer or request.headers.get("X-CSRF-Token") is not None


def _back_to_history() -> ResponseReturnValue:
    cursor = request.form.get("cursor")
    return redirect(f"{url_for('web.history')}?{link_of(request.form, cursor=cursor)}", 303)


def _digest_of_static() -> str:
    """Return what changes with the static files, so that browsers may keep them for good."""
    content = b"".join(path.read_bytes() for path in sorted(_STATIC.iterdir()))
    return hashlib.sha256(content).hexdigest()[:12]
