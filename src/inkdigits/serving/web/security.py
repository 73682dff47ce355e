"""What every answer says to a browser about whom to trust, and which requests are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from flask import Request, Response

from inkdigits.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

# No 'unsafe-inline' and no other origin: what slips into a page can neither run nor call home.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def is_foreign(request: Request, settings: Settings) -> bool:
    """Whether a page of another origin sent a request that changes something, unasked.

    Browsers say so in ``Sec-Fetch-Site`` or ``Origin``; programs send neither, and are no danger:
    nobody's browser can be made to be one.
    """
    if request.method in SAFE_METHODS or is_allowed_origin(request, settings):
        return False
    site = request.environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.environ.get("HTTP_ORIGIN")
    return origin is not None and origin.partition("://")[2] != request.host


def is_allowed_origin(request: Request, settings: Settings) -> bool:
    """Whether the request comes from a page of an origin in ``INKDIGITS_CORS_ORIGINS``."""
    return request.environ.get("HTTP_ORIGIN") in settings.cors_origins


def with_headers(application: WSGIApplication, settings: Settings) -> WSGIApplication:
    """Have an application's answers bring the headers that are the same on all of them.

    As WSGI, for that costs a fiftieth of setting each of them on the response.

    Args:
        application: whose answers may have some of them already, which then stay.
        settings: whether browsers come over HTTPS, and from which origins.
    """
    headers = dict(_HEADERS)
    if settings.https == "on":
        headers["Strict-Transport-Security"] = "max-age=31536000"
    if not settings.cors_origins:
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
    names = frozenset(headers)

    def secured(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, sent: list[tuple[str, str]], *error: Any) -> Any:
            own = names.intersection([name for name, _ in sent])
            return start_response(
                status,
                sent + [item for item in headers.items() if item[0] not in own],
                *error,
            )

        return application(environ, start)

    return secured


def allow_origins(response: Response, request: Request, settings: Settings) -> None:
    """Let pages of ``INKDIGITS_CORS_ORIGINS`` read the API's answers, and no others."""
    is_api = request.path == "/predict" or request.path.startswith(("/api", "/health"))
    if not is_api:
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        return
    response.headers.add("Vary", "Origin")
    if is_allowed_origin(request, settings):
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-ID"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"
            response.headers["Access-Control-Allow-Headers"] = (
                "Content-Type, X-Request-ID, Authorization, X-API-Key"
            )
            response.headers["Access-Control-Max-Age"] = "600"
