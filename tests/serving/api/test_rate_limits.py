"""Who asks too often; counted by a real Redis too, which is stopped meanwhile."""

import pytest
from support.answers import asker
from support.fakes import send_digit
from support.redis import running_redis

from inkdigits.errors import ConfigError, TooManyRequestsError
from inkdigits.serving.api.rate_limits import RateLimits


def test_window_slides_over_a_minute(monkeypatch):
    rates, now = RateLimits(), 6001.0
    monkeypatch.setattr("time.time", lambda: now)
    for later, allowed, wait_s in ((0, 6, 59), (60, 1, 9), (30, 3, 9), (3600, 6, 29)):
        now += later
        for _ in range(allowed):
            rates.take("ada", 6)
        with pytest.raises(TooManyRequestsError) as caught:
            rates.take("ada", 6)
        assert (later, caught.value.retry_after) == (later, wait_s)
        rates.take("bob", 6)


def test_addresses_of_a_flood_are_forgotten(monkeypatch):
    monkeypatch.setattr("inkdigits.serving.api.rate_limits._MAX_COUNTS", 3)
    rates = RateLimits()
    for k in range(20):
        rates.take(f"address {k}", 6)
    assert len(rates._memory.storage) <= 4


@pytest.fixture
def redis():
    with running_redis() as server:
        yield server


@pytest.mark.e2e
@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_replicas_count_together_and_each_for_itself_while_redis_is_unavailable(
    redis, how, monkeypatch, caplog
):
    monkeypatch.setattr("inkdigits.serving.api.rate_limits._RETRY_S", 3600.0)
    monkeypatch.setattr("time.time", lambda: 6001.0)  # in the middle of a minute
    url = f"{redis.url}?socket_timeout=2"
    replicas = [asker(rate_limit=4, rate_limit_url=url) for _ in range(2)]

    def statuses(rounds):
        return [[send_digit(one).status_code for one in replicas] for _ in range(rounds)]

    def counter():
        return {one.get("/health/ready").json["rates"] for one in replicas}

    assert counter() == {"redis"}
    assert statuses(3) == [[200, 200], [200, 200], [429, 429]]
    getattr(redis, how)()
    assert statuses(5) == [[200, 200]] * 4 + [[429, 429]]
    assert counter() == {"process"}
    lines = [r.getMessage() for r in caplog.records if "rate limits" in r.getMessage()]
    assert lines == ["requests are counted for rate limits by: process"] * 2
    redis.stop()
    redis.start()
    for one in replicas:
        one.application.extensions["inkdigits.gate"].rates._retry_at = 0.0
    assert counter() == {"redis"}
    text = replicas[0].get("/metrics").text
    for name, count in (("redis", 4), ("process", 5)):
        assert f'inkdigits_rate_limits_total{{counter="{name}"}} {count}' in text, name
    assert statuses(3) == [[200, 200], [200, 429], [429, 429]]


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:port/0", "redis://127.0.0.1:1/0?socket_timeout=soon"]
)
def test_url_that_no_redis_can_have_is_an_error(url):
    with pytest.raises(ConfigError, match="INKDIGITS_RATE_LIMIT_URL"):
        RateLimits(url)
