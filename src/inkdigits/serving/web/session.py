"""Who sent a request: a browser known by a signed cookie, and perhaps the operator."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask import Flask, Request, current_app, g, session

from inkdigits.errors import (
    ConfigError,
    RecordNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from inkdigits.log.locks import file_lock
from inkdigits.log.record import ANYONE, NOBODY, Owner
from inkdigits.serving.api.access import CookieSessions
from inkdigits.serving.api.keys import OPERATOR, ApiKey, digest_of, name_of
from inkdigits.serving.api.requests import ServedRequest
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from inkdigits.log.store import Store

KEY_NAME: Final = "session.key"
"""File in the data directory with the key that signs the cookies."""

COOKIE_DAYS: Final = 365
"""How long a browser keeps access to its records."""

OPERATOR_HOURS: Final = 12
"""How long the operator stays signed in."""

_KEY_BYTES: Final = 32


def session_key(settings: Settings) -> str:
    """Return the key that signs the cookies: the one that is set, or one made once for all workers.

    >>> session_key(Settings(secret_key="k" * 32))[:4]
    'kkkk'

    Raises:
        ConfigError: the data folder cannot be used, or there are replicas without a common key.
    """
    if settings.secret_key is not None:
        return settings.secret_key
    if settings.rate_limit_url is not None:
        raise ConfigError(
            "INKDIGITS_RATE_LIMIT_URL is for several replicas, which need the same "
            "INKDIGITS_SECRET_KEY for the page's cookies; set that too, or INKDIGITS_PAGE=off"
        )
    path = settings.data_folder / KEY_NAME
    try:
        if not path.exists():  # a folder that has it may be read-only
            _make_key(path)
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(
            f"the key for the page's cookies cannot be kept in {path}: {error.strerror}; set "
            "INKDIGITS_DATA_DIR to a folder that can be written, or set INKDIGITS_SECRET_KEY"
        ) from error


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file_lock(path.with_suffix(".lock")):
        if not path.exists():
            made = path.with_suffix(".new")
            made.touch(0o600)
            made.write_text(secrets.token_hex(_KEY_BYTES), encoding="ascii")
            made.replace(path)


def configure(app: Flask, settings: Settings) -> None:
    """Set up the application's cookies; a ConfigError is that of ``session_key``.

    >>> app = Flask("example")
    >>> configure(app, Settings(secret_key="k" * 32, https="on"))
    >>> app.config["SESSION_COOKIE_SECURE"]
    True
    """
    app.secret_key = session_key(settings)
    app.session_interface = CookieSessions()
    app.config.update(
        SESSION_COOKIE_NAME="inkdigits",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.https == "on",
        PERMANENT_SESSION_LIFETIME=COOKIE_DAYS * 24 * 3600,
        SESSION_REFRESH_EACH_REQUEST=False,
    )


def browser() -> str:
    """Return the key of this browser's records; a new browser gets one with the answer."""
    if "browser" not in session:
        session.permanent = True
        session["browser"] = secrets.token_hex(16)
    return str(session["browser"])


def csrf_token() -> str:
    """Return what a request that changes something has to bring, so that no other page sent it."""
    browser()
    if "csrf" not in session:
        session["csrf"] = secrets.token_urlsafe(24)
    return str(session["csrf"])


def brings_csrf_token(request: Request) -> bool:
    """Return whether the request brings this browser's token, in a header or in its form."""
    sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token") or ""
    kept = str(session.get("csrf", ""))
    return bool(kept) and hmac.compare_digest(sent.encode(), kept.encode())


def giver(request: ServedRequest, operator: Operator, *, has_keys: bool) -> tuple[Owner, str]:
    """Return whose predictions a request may label, and who it is.

    A cookie counts only with the page's token. Who has neither key nor cookie knows the id from an
    answer. That is enough for what was read without either, where no key is needed.

    Raises:
        RecordNotFoundError: nobody's.
    """
    if operator.bears_token(request):
        return ANYONE, OPERATOR
    if current_app.secret_key is not None and brings_csrf_token(request):
        return operator.scope(request), OPERATOR if operator.is_here(request) else "page"
    if request.owner is not None:
        return request.owner, request.owner
    if has_keys:
        raise RecordNotFoundError("You have no prediction with this id.")
    return NOBODY, "api"


class Operator:
    """Tells the operator, who sees everybody's records, and the reviewers, who see the queue.

    The operator has ``INKDIGITS_ADMIN_TOKEN``, each reviewer a token of his own. A sign-in is in
    the browser's cookie for ``OPERATOR_HOURS``. It ends earlier with a sign-out or another token,
    also in copies of the cookie.

    Args:
        token: None means that there is no operator.
        store: where sign-outs are kept, for all replicas; without one there are no sign-ins.
        reviewers: names and hashes of their tokens.
    """

    def __init__(
        self, token: str | None, store: Store | None, reviewers: Sequence[ApiKey] = ()
    ) -> None:
        self._operator = () if token is None else (ApiKey(OPERATOR, digest_of(token)),)
        self._store = store
        self.use(reviewers)

    def use(self, reviewers: Sequence[ApiKey]) -> None:
        """Know these reviewers from now on; the sign-ins of others have ended."""
        self._people = (*self._operator, *reviewers)
        # Who has a cookie can read it, so that it holds neither a token nor its digest.
        self._marks = {one.name: digest_of(f"sign-in {one.digest}") for one in self._people}

    @property
    def exists(self) -> bool:
        """Whether anybody can sign in."""
        return bool(self._people)

    def name_of(self, token: str) -> str | None:
        """Return whose token this is: OPERATOR, a reviewer's name, or None."""
        return name_of(token, self._people)

    def sign_in(self, name: str) -> None:
        """Remember in the cookie that this browser had the token of that name."""
        browser()
        until = int(time.time()) + OPERATOR_HOURS * 3600
        session["sign_in"] = name, self._marks[name], secrets.token_hex(16), until

    def sign_out(self) -> None:
        """Forget it, in this browser and in copies of its cookie.

        Raises:
            StoreUnavailableError: the log cannot be written; the cookie stays for the next try.
        """
        *_, sign_in, _ = session.get("sign_in", (None, None))
        if sign_in is not None and self._store is not None:
            try:
                self._store.end_sign_in(sign_in, OPERATOR_HOURS)
            except StoreError as error:
                raise StoreUnavailableError(
                    "Signing out failed because the log cannot be written. Try again."
                ) from error
        session.pop("sign_in", None)

    def _signed_in(self) -> str | None:
        """Return who has signed in; nobody while the database, which has sign-outs, is down."""
        name, mark, sign_in, until = session.get("sign_in", (None, None, None, 0))
        if self._store is None or time.time() > until or self._marks.get(name) != mark:
            return None
        if not self._store.available:  # SQLite may be read while sign-outs cannot be written
            return None
        try:
            return None if self._store.has_ended(sign_in) else name
        except StoreError:
            return None

    def bears_token(self, request: Request) -> bool:
        """Return whether the request itself has the token: ``Authorization: Bearer …``."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.name_of(token.strip()) == OPERATOR

    def is_here(self, request: Request) -> bool:
        """Return whether the request is the operator's."""
        return self.reviewer(request) == OPERATOR

    def reviewer(self, request: Request) -> str | None:
        """Return who sent the request, if they may review: OPERATOR or a reviewer's name."""
        if "reviewer" not in g:
            g.reviewer = OPERATOR if self.bears_token(request) else self._signed_in()
        found: str | None = g.reviewer
        return found

    def scope(self, request: Request) -> Owner:
        """Return whose records the request may see: all for the operator, or its browser's."""
        return ANYONE if self.is_here(request) else browser()
