"""The HTTP interface: a Flask application around a reader; ``docs/api.md`` is its contract."""

from __future__ import annotations

import logging
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from flask import Flask

from inkdigits.decision.prediction import Reader
from inkdigits.errors import ClientError, NotReadyError
from inkdigits.serving import hooks
from inkdigits.serving.api import error_handlers, feedback, health, open_inference, predict, read
from inkdigits.serving.api.access import Gate, behind_proxies, with_headers
from inkdigits.serving.api.keys import load_reviewers
from inkdigits.serving.api.load_shedding import ServedReader
from inkdigits.serving.api.rate_limits import RateLimits
from inkdigits.serving.monitoring.logging import fields
from inkdigits.serving.monitoring.metrics import Metrics
from inkdigits.serving.web import docs, session
from inkdigits.serving.web.session import Operator
from inkdigits.settings import Settings

if TYPE_CHECKING:
    # A service that keeps no log does without SQLAlchemy, which takes 12 MB.
    from inkdigits.log.store import Store

logger = logging.getLogger(__name__)


def create_app(
    settings: Settings, reader: Reader, store: Store | None = None, metrics: Metrics | None = None
) -> Flask:
    """Build the application around a reader, and try a warm-up prediction.

    Without a store nothing is kept and there is no page. Without metrics, those of this process
    alone are counted. A ConfigError says that the cookies have no key, or keys cannot be used.

    >>> from inkdigits.client import Client
    >>> app = create_app(Settings(page="off"), Client("http://127.0.0.1:9"))
    >>> app.test_client().get("/health/live").json
    {'status': 'alive'}
    """
    package = version("inkdigits")
    metrics = Metrics() if metrics is None else metrics
    served = ServedReader(reader, settings, metrics)
    try:
        served.check()
    except (NotReadyError, ClientError) as error:
        logger.error("starting without being ready", extra=fields(error=error))  # noqa: TRY400
    operator = Operator(settings.admin_token, store, load_reviewers(settings))
    giver = partial(session.giver, operator=operator, has_keys=settings.has_keys)
    rates = RateLimits(settings.rate_limit_url, partial(metrics.count, "rate_limits"))
    gate = Gate(settings, operator.bears_token, rates)

    app = hooks.Application(__name__, static_folder=None, template_folder="web/templates")
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_bytes,
        MAX_FORM_MEMORY_SIZE=settings.max_bytes,
        MAX_FORM_PARTS=error_handlers.MAX_FORM_PARTS,
        # An answer for the client and a traceback in the log, in tests as in service.
        PROPAGATE_EXCEPTIONS=False,
    )
    parts = {"reader": served, "gate": gate, "operator": operator}
    app.extensions |= {f"inkdigits.{name}": part for name, part in parts.items()}
    if settings.otlp_endpoint is not None:
        # Before the other hooks, so that a request which they deny is traced too.
        from inkdigits.serving.monitoring import tracing

        tracing.install(app, settings.otlp_endpoint, metrics, package)
    hooks.install(app, gate, served, metrics)
    error_handlers.install(app)

    app.register_blueprint(predict.blueprint(settings, served, store, metrics))
    app.register_blueprint(feedback.blueprint(store, giver))
    app.register_blueprint(read.blueprint(settings, served, store, metrics))
    app.register_blueprint(open_inference.blueprint(settings, served, metrics, package))
    app.register_blueprint(health.blueprint(served, store, metrics, rates, package))
    app.register_blueprint(docs.blueprint(settings, served, package))
    if store is not None and settings.page == "on":
        from inkdigits.serving.web import views

        session.configure(app, settings)
        app.register_blueprint(views.blueprint(settings, served, store, metrics, operator, gate))
    application = with_headers(app.wsgi_app, settings)
    app.wsgi_app = behind_proxies(application, settings.trusted_proxies)  # type: ignore[assignment, method-assign]
    return app
