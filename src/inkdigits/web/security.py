"""What every answer says to a browser about whom to trust, and which requests are refused."""

from __future__ import annotations

from typing import Final

from flask import Request, Response

from inkdigits.config import Settings

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
}


def is_foreign(request: Request, settings: Settings) -> bool:
    """Whether a page of another origin sent a request that changes something, unasked.

    Browsers say so in ``Sec-Fetch-Site`` or ``Origin``; programs send neither, and are no danger:
    nobody's browser can be made to be one.
    """
    if request.method in SAFE_METHODS or is_allowed_origin(request, settings):
        return False
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.headers.get("Origin")
    return origin is not None and origin.partition("://")[2] != request.host


def is_allowed_origin(request: Request, settings: Settings) -> bool:
    """Whether the request comes from a page of an origin in ``INKDIGITS_CORS_ORIGINS``."""
    return request.headers.get("Origin") in settings.cors_origins


def secure(response: Response, request: Request, settings: Settings) -> None:
    """Add the headers; those for other origins only to the API's answers."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if settings.https == "on":
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    is_api = request.path == "/predict" or request.path.startswith(("/api", "/health"))
    if not settings.cors_origins or not is_api:
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
