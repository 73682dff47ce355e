"""Who may ask what: hosts, origins, API keys and rates; and what browsers are told of that."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flask import Flask, Request, Response, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from werkzeug.middleware.proxy_fix import ProxyFix

from inkdigits import errors
from inkdigits.serving.api.keys import ApiKey, brought_key, load_keys, name_of
from inkdigits.serving.api.rate_limits import RateLimits
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

OPEN_PATHS: Final = frozenset(
    {"/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
)
"""Orchestrators ask these without a key and without a rate limit."""

SIGN_INS_PER_MINUTE: Final = 12
"""Attempts to sign in that one address has."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

# No 'unsafe-inline' and no other origin: an injected script can neither run nor send anything.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

# In the WSGI environment, if a trusted proxy has passed the request on.
_PROXIED: Final = "inkdigits.proxied"
_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_PREFLIGHT_HEADERS: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Content-Type, X-Request-ID, Authorization, X-API-Key",
    "Access-Control-Max-Age": "600",
}
# A household or a machine gets at least this much of IPv6, so it counts as one client.
_IPV6_PREFIX: Final = 64


def client_address(
    request: Request, trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> str:
    """Return the address of the client that a request comes from; "unknown" if the server has none.

    Behind trusted proxies it is the last address in ``X-Forwarded-For`` that is not one of theirs;
    of IPv6 it is the network of 64 bits.

    >>> client_address(Request({"REMOTE_ADDR": "192.0.2.1"}), [])
    '192.0.2.1'
    """
    hops = [request.remote_addr or ""]
    for header in reversed(request.headers.getlist("X-Forwarded-For")):
        hops += [hop.strip() for hop in reversed(header.split(","))]
    client: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    for hop in hops:
        try:
            address = ipaddress.ip_address(hop)
        except ValueError:
            break
        client = getattr(address, "ipv4_mapped", None) or address
        if not any(client in network for network in trusted):
            break
    if client is not None and client.version == 6:
        return str(ipaddress.ip_network((client, _IPV6_PREFIX), strict=False))
    return "unknown" if client is None else str(client)


def _is_known_host(host: str, names: frozenset[str] | None) -> bool:
    """Return whether a Host (with or without a port) is one under which this service is reached.

    A page elsewhere can let its own name resolve to 127.0.0.1 (DNS rebinding). Its requests would
    then count as of the same origin, but they carry its name. ``names`` None allows every name.
    """
    if names is None:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in names or name == "localhost" or name.endswith(".localhost"):
            return True
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Gate:
    """Lets requests in, or raises.

    Args:
        settings: hosts, origins, keys, rate and trusted proxies.
        is_operator: whether a request brings the operator's token, which is a key too.
        rates: what counts requests.

    Raises:
        ConfigError: the API keys are invalid; see ``load_keys``.
    """

    def __init__(
        self, settings: Settings, is_operator: Callable[[Request], bool], rates: RateLimits
    ) -> None:
        self._settings = settings
        self.rates = rates
        self._keys = load_keys(settings)
        self._is_operator = is_operator
        self._trusted = tuple(ipaddress.ip_network(one) for one in settings.trusted_proxies)
        names = frozenset({settings.host, *settings.hosts}) if settings.is_local else None
        self._is_known_host = lru_cache(maxsize=256)(partial(_is_known_host, names=names))

    def use(self, keys: tuple[ApiKey, ...]) -> None:
        """Know these keys from now on."""
        self._keys = keys

    def admit(self, request: Request) -> str | None:
        """Let a request in; returns the name of its API key, or None without one.

        Raises:
            UnknownHostError: its Host is not one of this service's.
            ForeignOriginError: a page of another origin sent it, and it changes something.
            TooManyRequestsError: its key, or without one its address, is over the rate limit.
            KeyRequiredError: it brings no known key, and one is needed.
        """
        host = request.environ.get("HTTP_HOST")
        # A proxy may be reached under any name, and pass on any other.
        is_proxied = _PROXIED in request.environ
        if host is not None and not is_proxied and not self._is_known_host(host):
            raise errors.UnknownHostError(
                "The Host header is unknown. Use localhost, or add the host to INKDIGITS_HOSTS."
            )
        if request.method not in SAFE_METHODS:
            self._require_own_origin(request)
        if request.path in OPEN_PATHS:
            return None
        brought = brought_key(request) if self._keys else None
        name = None if brought is None else name_of(brought, self._keys)
        is_operator = name is None and bool(self._keys) and self._is_operator(request)
        if self._settings.rate_limit is not None:
            client = f"key {name}"
            if name is None:
                address = client_address(request, self._trusted)
                client = "the operator" if is_operator else f"address {address}"
            self.rates.take(client, self._settings.rate_limit)
        # A browser's preflight request brings no key, and gets only the CORS headers.
        if self._keys and name is None and not is_operator and request.method != "OPTIONS":
            raise errors.KeyRequiredError(
                "An API key is required. Send it in the header X-API-Key."
            )
        return name

    def admit_sign_in(self, request: Request) -> None:
        """Let an attempt to sign in through, or raise TooManyRequestsError."""
        self.rates.take(f"sign-in {client_address(request, self._trusted)}", SIGN_INS_PER_MINUTE)

    def _require_own_origin(self, request: Request) -> None:
        # Browsers send Sec-Fetch-Site or Origin. Programs send neither, and no page controls them.
        if self._is_allowed_origin(request):
            return
        site = request.environ.get("HTTP_SEC_FETCH_SITE")
        origin = request.environ.get("HTTP_ORIGIN")
        if site is not None:
            is_foreign = site not in {"same-origin", "none"}
        elif _PROXIED in request.environ and "HTTP_X_FORWARDED_HOST" not in request.environ:
            # The Host is the proxy's own, so that it says nothing about the page's origin.
            is_foreign = False
        else:
            is_foreign = origin is not None and origin.partition("://")[2] != request.host
        if is_foreign:
            raise errors.ForeignOriginError(
                "The request comes from another origin. Add it to INKDIGITS_CORS_ORIGINS to "
                "allow it."
            )

    def _is_allowed_origin(self, request: Request) -> bool:
        return request.environ.get("HTTP_ORIGIN") in self._settings.cors_origins

    def allow_origins(self, response: Response, request: Request) -> None:
        """Let pages of ``INKDIGITS_CORS_ORIGINS`` read the answers of the API, and no others."""
        if not self._settings.cors_origins:
            return
        is_api = request.path.startswith(("/predict", "/read", "/api", "/health"))
        if not is_api:
            response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
            return
        response.headers.add("Vary", "Origin")
        if not self._is_allowed_origin(request):
            return
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
        response.headers["Access-Control-Expose-Headers"] = "Retry-After, X-Request-ID"
        if request.method == "OPTIONS":
            response.headers.update(_PREFLIGHT_HEADERS)


class CookieSessions(SecureCookieSessionInterface):
    """Cookies for HTTPS if the browser came by it, and only for the path of this service."""

    _has_warned = False

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Return the session of the request's cookies; a program brings none."""
        if "HTTP_COOKIE" not in request.environ:
            return self.session_class()
        opened = super().open_session(app, request)
        if not opened and not self._has_warned and self.get_cookie_name(app) in request.cookies:
            self._has_warned = True
            logger.warning("a cookie has another key; replicas need the same INKDIGITS_SECRET_KEY")
        return opened

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Set the cookie, if the session was used."""
        if session.accessed:
            super().save_session(app, session, response)

    def get_cookie_secure(self, app: Flask) -> bool:
        """Return whether the cookie is for HTTPS only."""
        return super().get_cookie_secure(app) or request.is_secure

    def get_cookie_path(self, app: Flask) -> str:
        """Return the path below which a proxy serves this service."""
        return request.script_root or super().get_cookie_path(app)


def with_headers(application: WSGIApplication, settings: Settings) -> WSGIApplication:
    """Add the headers that are the same on all answers, unless an answer has its own.

    As WSGI this costs a fiftieth of setting each of them on the response.

    >>> def hello(environ, start_response):
    ...     start_response("200 OK", [("X-Frame-Options", "SAMEORIGIN")])
    ...     return [b"hello"]
    >>> with_headers(hello, Settings())({}, lambda status, headers: print(headers[0]))
    ('X-Frame-Options', 'SAMEORIGIN')
    [b'hello']
    """
    headers = dict(_HEADERS)
    if not settings.cors_origins:
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
    secure_headers = headers | {"Strict-Transport-Security": "max-age=31536000"}
    names = frozenset(secure_headers)

    def secured(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, sent: list[tuple[str, str]], *error: Any) -> Any:
            own = names.intersection([name for name, _ in sent])
            is_secure = settings.https == "on" or environ.get("wsgi.url_scheme") == "https"
            wanted = secure_headers if is_secure else headers
            added = [item for item in wanted.items() if item[0] not in own]
            return start_response(status, sent + added, *error)

        return application(environ, start)

    return secured


def behind_proxies(application: WSGIApplication, proxies: Iterable[str]) -> WSGIApplication:
    """Believe scheme, host and path prefix that a proxy at one of the addresses says.

    >>> def show(environ, start_response):
    ...     return [environ["wsgi.url_scheme"], environ["SCRIPT_NAME"]]
    >>> environ = {"REMOTE_ADDR": "10.0.0.2", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}
    >>> environ |= {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_PREFIX": "/digits"}
    >>> behind_proxies(show, ["10.0.0.0/8"])(environ, None)
    ['https', '/digits']
    """
    networks = tuple(ipaddress.ip_network(one) for one in proxies)
    if not networks:
        return application
    fixed = ProxyFix(application, x_for=0, x_proto=1, x_host=1, x_prefix=1)

    def believing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            peer = ipaddress.ip_address(environ.get("REMOTE_ADDR", ""))
        except ValueError:
            return application(environ, start_response)
        peer = getattr(peer, "ipv4_mapped", None) or peer
        if not any(peer in network for network in networks):
            return application(environ, start_response)
        environ[_PROXIED] = True
        return fixed(environ, start_response)

    return believing
