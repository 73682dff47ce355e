"""Who may ask, and how often: API keys, kept as hashes only, and a token bucket for each client.

KeyRequiredError         the service asks for an API key, and the request brings none that it knows
TooManyRequestsError     the client is over its rate
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from flask import Request

from inkdigits.errors import ConfigError, KeyRequiredError, TooManyRequestsError
from inkdigits.settings import Settings, parse_api_keys

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

OPEN_PATHS: Final = frozenset(
    {"/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
)
"""Orchestrators ask these without a key, and as often as they like."""

BURST_SECONDS: Final = 10
"""A client that was quiet may ask at once what its rate allows in this time."""

# Clients that are told apart; the one not seen for longest makes room, its bucket full by then.
_MAX_CLIENTS: Final = 10_000
# A household or a machine gets at least this much of IPv6, so it counts as one.
_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: whose it is, and the SHA-256 of it in lower-case hexadecimal."""

    name: str
    digest: str


def new_key() -> str:
    """A new key: 256 random bits, which is why one SHA-256 is hash enough to keep it by."""
    return "ink_" + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """What is kept of a key: its SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def load_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """The keys of the settings and of their file.

    Args:
        settings: ``api_keys``, and ``api_keys_file`` with one ``name:sha256`` a line; lines that
            are empty or begin with # are skipped.

    Returns:
        The keys; none means that nobody has to bring one.

    Raises:
        ConfigError: the file can't be read, has no key or a line of another form, or two keys
            have one name.
    """
    pairs = list(settings.api_keys)
    if settings.api_keys_file is not None:
        path = settings.api_keys_file
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the API keys' file {path} can't be read: {error}") from error
        wanted = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not wanted:
            # An empty file would open the service, which is hardly what it was named for.
            raise ConfigError(f"the API keys' file {path} has no key")
        try:
            pairs += parse_api_keys(",".join(wanted))
        except ConfigError as error:
            raise ConfigError(f"the API keys' file {path}: {error}") from None
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two API keys have the name {twice[0]!r}")
    return tuple(ApiKey(name, digest) for name, digest in pairs)


def name_of(key: str, keys: Iterable[ApiKey]) -> str | None:
    """Whose key it is; None if it is nobody's. Every key is compared, in constant time."""
    digest = digest_of(key)
    found: str | None = None
    for known in keys:
        if hmac.compare_digest(digest, known.digest):
            found = known.name
    return found


def brought_key(request: Request) -> str | None:
    """The key that a request brings, from the first of these that there is.

    ``X-API-Key``, ``Authorization: Bearer …``, or the password of ``Authorization: Basic …``, for
    which browsers ask their user.
    """
    header = request.headers.get("X-API-Key")
    if header is not None:
        return header
    authorization = request.authorization
    if authorization is None:
        return None
    return authorization.token if authorization.type == "bearer" else authorization.password


def client_address(request: Request, trusted: Iterable[Network]) -> str:
    """Whose request it is, by address.

    Args:
        request: with the peer's address, and perhaps ``X-Forwarded-For``.
        trusted: networks of the proxies that are believed.

    Returns:
        The peer, or the last address in ``X-Forwarded-For`` that isn't of a trusted proxy, where
        one says so: what stands before it anybody may have written. Of IPv6 the network of 64
        bits; "unknown" where the server gives no address.
    """
    networks = tuple(trusted)
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
        if not any(client in network for network in networks):
            break
    if client is None:
        return "unknown"
    if client.version == 6:
        return str(ipaddress.ip_network((client, _IPV6_PREFIX), strict=False))
    return str(client)


class TokenBuckets:
    """A token bucket for each client, in this process. Safe for threads.

    Args:
        per_minute: tokens that a bucket gains a minute; it holds those of ``BURST_SECONDS``.
        clock: seconds that never go back.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60
        self._size = max(1.0, self._rate * BURST_SECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Take one token.

        Raises:
            TooManyRequestsError: there is none.
        """
        now = self._clock()
        with self._lock:
            tokens, then = self._buckets.pop(client, (self._size, now))
            tokens = min(self._size, tokens + (now - then) * self._rate)
            is_allowed = tokens >= 1
            self._buckets[client] = (tokens - is_allowed, now)
            if len(self._buckets) > _MAX_CLIENTS:
                self._buckets.popitem(last=False)
        if not is_allowed:
            raise TooManyRequestsError(max(1, math.ceil((1 - tokens) / self._rate)))


class Gate:
    """Lets requests in, or raises.

    Args:
        settings: keys, rate and trusted proxies.
        is_operator: whether a request brings the operator's token, which is a key too.

    Raises:
        ConfigError: see ``load_keys``.
    """

    def __init__(self, settings: Settings, is_operator: Callable[[Request], bool]) -> None:
        self._keys = load_keys(settings)
        self._is_operator = is_operator
        self._trusted = tuple(ipaddress.ip_network(one) for one in settings.trusted_proxies)
        self._buckets = None if settings.rate_limit is None else TokenBuckets(settings.rate_limit)

    def admit(self, request: Request) -> None:
        """Let a request in.

        Raises:
            TooManyRequestsError: its key, or without one its address, is over the rate.
            KeyRequiredError: it brings no key that is known, and one is needed.
        """
        if request.path in OPEN_PATHS:
            return
        brought = brought_key(request) if self._keys else None
        name = None if brought is None else name_of(brought, self._keys)
        if name is None and self._keys and self._is_operator(request):
            name = "the operator"
        if self._buckets is not None:
            address = client_address(request, self._trusted)
            self._buckets.take(f"address {address}" if name is None else f"key {name}")
        # A browser's preflight request brings no key, and gets nothing but the rules.
        if self._keys and name is None and request.method != "OPTIONS":
            raise KeyRequiredError("An API key is needed; see docs/api.md for how to bring it.")
