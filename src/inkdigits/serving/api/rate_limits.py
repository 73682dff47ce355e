"""How often clients may ask, counted by the library ``limits``."""

from __future__ import annotations

import importlib.util
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias, TypeVar

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from inkdigits.errors import BackendUnavailableError, ConfigError, TooManyRequestsError
from inkdigits.serving.monitoring.logging import fields

Counter: TypeAlias = Literal["redis", "process"]
"""What counts the requests of clients."""

_Answer = TypeVar("_Answer")

# Counts in this process, one or two per client. So many addresses are one attacker's network.
_MAX_COUNTS: Final = 10_000
# Seconds that a request waits for Redis, and until one is asked again that has failed.
_WAIT_S: Final = 0.25
_RETRY_S: Final = 5.0

logger = logging.getLogger(__name__)


class RateLimits:
    """Counts the requests of clients: in Redis for all replicas, or in this process alone.

    A window of a minute slides over them (the sliding window counter of ``limits``). While Redis
    is unavailable each process counts for itself, and asks Redis again every 5 seconds.

    Args:
        url: of Redis; None counts in this process.
        note: called for each request that Redis should count, with what counted it.

    Raises:
        ConfigError: the URL of Redis is invalid.
        BackendUnavailableError: the package redis is not installed.
    """

    def __init__(
        self, url: str | None = None, note: Callable[[Counter], None] = lambda _: None
    ) -> None:
        self._forget()
        self._shared = None if url is None else SlidingWindowCounterRateLimiter(_redis(url))
        self._note = note
        self._counter: Counter = "process" if url is None else "redis"
        self._retry_at = 0.0

    def take(self, client: str, per_minute: int) -> None:
        """Count a request, or raise TooManyRequestsError for a client that has had its minute's."""
        item = RateLimitItemPerMinute(per_minute)
        is_allowed = self._ask(lambda counts: counts.hit(item, client))
        if self._shared is not None:
            self._note(self._counter)
        if not is_allowed:
            until = self._ask(lambda counts: counts.get_window_stats(item, client)).reset_time
            raise TooManyRequestsError(max(1, math.ceil(until - time.time())))

    def counter(self) -> Counter:
        """Return what counts now, after asking it."""
        self._ask(lambda counts: counts.test(RateLimitItemPerMinute(1), "nobody"))
        return self._counter

    def _ask(self, question: Callable[[SlidingWindowCounterRateLimiter], _Answer]) -> _Answer:
        now = time.monotonic()
        if self._shared is not None and (self._counter == "redis" or now >= self._retry_at):
            # So that one thread at a time waits for a Redis that fails.
            self._retry_at = now + _RETRY_S
            try:
                answer = question(self._shared)
            except StorageError as error:
                self._change("process", error)
            else:
                self._change("redis")
                return answer
        if len(self._memory.storage) > _MAX_COUNTS:
            self._forget()
        return question(self._own)

    def _forget(self) -> None:
        self._memory = MemoryStorage()
        self._own = SlidingWindowCounterRateLimiter(self._memory)

    def _change(self, counter: Counter, error: StorageError | None = None) -> None:
        if counter != self._counter:
            message = "requests are counted for rate limits by: %s"
            logger.warning(message, counter, extra=fields(error=error))
        self._counter = counter


def _redis(url: str) -> RedisStorage:
    if importlib.util.find_spec("redis") is None:
        needs = "INKDIGITS_RATE_LIMIT_URL needs a client of Redis"
        raise BackendUnavailableError.without("redis", needs)
    # The client's own retries would hold a request for seconds.
    how: Any = {"socket_timeout": _WAIT_S, "socket_connect_timeout": _WAIT_S, "retry": None}
    try:
        return RedisStorage(url, wrap_exceptions=True, **how)
    except ValueError as error:
        raise ConfigError(f"INKDIGITS_RATE_LIMIT_URL: {error}") from None
