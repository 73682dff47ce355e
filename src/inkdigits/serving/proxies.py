"""What trusted proxies say of the browser's request: its scheme, host and path prefix."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from werkzeug.middleware.proxy_fix import ProxyFix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PROXIED: Final = "inkdigits.proxied"
"""Key of the WSGI environment that is there if a trusted proxy has passed the request on."""


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
        environ[PROXIED] = True
        return fixed(environ, start_response)

    return believing
