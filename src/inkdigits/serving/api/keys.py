"""API keys: how they are made, kept as hashes only, and found in a request."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flask import Request

from inkdigits.errors import ConfigError
from inkdigits.settings import Settings, parse_api_keys

OPERATOR: Final = "operator"
"""The operator's name, among those who give labels."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key: the name of its owner, and its SHA-256 in lower-case hexadecimal."""

    name: str
    digest: str


def new_key() -> str:
    """Make a key of 256 random bits, so that one SHA-256 is enough to keep it by.

    >>> new_key().startswith("ink_")
    True
    """
    return "ink_" + secrets.token_urlsafe(32)


def digest_of(key: str) -> str:
    """Return the SHA-256 of a key in lower-case hexadecimal, the only form that is kept.

    >>> digest_of("ink_example")[:8]
    'c49198fe'
    """
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def load_reviewers(settings: Settings) -> tuple[ApiKey, ...]:
    """Load the tokens of those who may review; errors are those of ``load_keys``.

    >>> load_reviewers(Settings())
    ()
    """
    found = _load(settings.reviewers, settings.reviewers_file, "reviewers")
    if any(one.name == OPERATOR for one in found):
        raise ConfigError(f"a reviewer has the name {OPERATOR!r}; it is the operator's")
    return found


def load_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """Load the keys of the settings and of their file, which has one ``name:sha256`` per line.

    A ConfigError says that the file cannot be used, or that two keys have the same name.

    >>> load_keys(Settings(api_keys=(("ada", digest_of("ink_example")),)))[0].name
    'ada'
    """
    return _load(settings.api_keys, settings.api_keys_file, "API keys")


def _load(given: Iterable[tuple[str, str]], path: Path | None, what: str) -> tuple[ApiKey, ...]:
    pairs = list(given)
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the {what} file {path} cannot be read: {error}") from error
        wanted = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not wanted:
            # An empty file would open the service to everybody.
            raise ConfigError(f"the {what} file {path} has no key")
        try:
            pairs += parse_api_keys(",".join(wanted))
        except ConfigError as error:
            raise ConfigError(f"the {what} file {path}: {error}") from None
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two {what} have the name {twice[0]!r}; each needs its own")
    return tuple(ApiKey(name, digest) for name, digest in pairs)


def name_of(key: str, keys: Iterable[ApiKey]) -> str | None:
    """Return the name of a key's owner, or None; every key is compared in constant time.

    >>> name_of("ink_example", [ApiKey("ada", digest_of("ink_example"))])
    'ada'
    """
    digest = digest_of(key)
    found: str | None = None
    for known in keys:
        if hmac.compare_digest(digest, known.digest):
            found = known.name
    return found


def brought_key(request: Request) -> str | None:
    """Return the key that a request brings, or None.

    It is the first of ``X-API-Key``, ``Authorization: Bearer …`` and the password of
    ``Authorization: Basic …``, for which browsers ask their user.

    >>> brought_key(Request({"HTTP_X_API_KEY": "ink_example"}))
    'ink_example'
    """
    header = request.headers.get("X-API-Key")
    authorization = request.authorization
    if header is not None or authorization is None:
        return header
    return authorization.token if authorization.type == "bearer" else authorization.password
