"""Who is at the other end: a browser known by a signed cookie, and perhaps the operator."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from flask import Flask, Request, g, session
from flask.sessions import SecureCookieSessionInterface

from inkdigits.errors import ConfigError
from inkdigits.log.record import ANYONE, Owner
from inkdigits.settings import Settings

KEY_NAME: Final = "session.key"
"""File in the data directory with the key that signs the cookies."""

COOKIE_DAYS: Final = 365

_KEY_BYTES: Final = 32


def session_key(settings: Settings) -> str:
    """The key that signs the cookies: the one that is set, or one made once for all workers.

    Args:
        settings: ``secret_key``, or the data folder, where a new key is kept for its user alone.

    Raises:
        ConfigError: the data folder can't be used.
    """
    if settings.secret_key is not None:
        return settings.secret_key
    path = settings.data_folder / KEY_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make_key(path)
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(
            f"the key for the page's cookies can't be kept in {path}: {error.strerror}; "
            "set INKDIGITS_DATA_DIR or INKDIGITS_SECRET_KEY"
        ) from error


def _make_key(path: Path) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)  # of mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES))
        # A link, unlike a rename, leaves the key of a process that was faster.
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        Path(temporary).unlink()


def configure(app: Flask, settings: Settings) -> None:
    """Set up the application's cookies.

    Raises:
        ConfigError: see ``session_key``.
    """
    app.secret_key = session_key(settings)
    app.session_interface = SecureCookieSessionInterface()
    app.config.update(
        SESSION_COOKIE_NAME="inkdigits",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.https == "on",
        PERMANENT_SESSION_LIFETIME=COOKIE_DAYS * 24 * 3600,
        SESSION_REFRESH_EACH_REQUEST=False,
    )


def browser() -> str:
    """The key of this browser's records; a new browser gets one with the answer."""
    if "browser" not in session:
        session.permanent = True
        session["browser"] = secrets.token_hex(16)
    return str(session["browser"])


def csrf_token() -> str:
    """What a request that changes something has to bring along, so that no other page sent it."""
    browser()
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def brings_csrf_token(request: Request) -> bool:
    """Whether the request brings this browser's token, in a header or in its form."""
    sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token") or ""
    kept = str(session.get("csrf", ""))
    return bool(kept) and hmac.compare_digest(sent.encode(), kept.encode())


class Operator:
    """Tells the operator, who sees everybody's records, by ``INKDIGITS_ADMIN_TOKEN``.

    Args:
        token: None means that there is no operator, and nobody sees everybody's records.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        # The cookie can be read, though not changed, by who has it: it holds no token, and what
        # it holds is of no use once the token has been changed.
        self._mark = hashlib.sha256(b"inkdigits operator " + (token or "").encode()).hexdigest()

    @property
    def exists(self) -> bool:
        """Whether a token is set."""
        return self._token is not None

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    def sign_in(self) -> None:
        """Remember in the cookie that this browser had the token."""
        browser()
        session["operator"] = self._mark

    def sign_out(self) -> None:
        """Forget it."""
        session.pop("operator", None)

    def bears_token(self, request: Request) -> bool:
        """Whether the request itself has the token: ``Authorization: Bearer …``."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.knows(token.strip())

    def is_here(self, request: Request) -> bool:
        """Whether the request is the operator's."""
        if "is_operator" not in g:
            signed_in = self.exists and hmac.compare_digest(
                str(session.get("operator", "")), self._mark
            )
            g.is_operator = signed_in or self.bears_token(request)
        return bool(g.is_operator)

    def scope(self, request: Request) -> Owner:
        """Whose records the request may see: everybody's for the operator, else its browser's."""
        return ANYONE if self.is_here(request) else browser()
