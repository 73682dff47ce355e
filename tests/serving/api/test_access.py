"""Hosts, origins and rates: who is let in, and who is not."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from flask import Request
from flask.testing import FlaskClient
from support.fakes import FakeReader, send_digit
from werkzeug.test import EnvironBuilder

from inkdigits.errors import TooManyRequestsError
from inkdigits.serving.api.access import OPEN_PATHS, TokenBuckets, client_address
from inkdigits.serving.api.keys import digest_of
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

KEY = "ink_of-ada"
KEYS = (("ada", digest_of(KEY)), ("bob", digest_of("ink_of-bob")))


def client(**settings: Any) -> FlaskClient:
    return create_app(Settings(**{"page": "off", **settings}), FakeReader()).test_client()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:5000", 200),
        ("LOCALHOST", 200),
        ("ink.localhost", 200),
        ("127.0.0.1:5000", 200),
        ("127.8.8.8", 200),
        ("[::1]:5000", 200),
        ("digits.example:80", 200),
        ("evil.example", 403),
        ("evil.example:5000", 403),
        ("localhost.evil.example", 403),
        ("192.0.2.1", 403),
        ("[::", 403),
        ("", 403),
    ],
)
def test_service_of_this_machine_only_knows_its_own_names(host: str, status: int) -> None:
    asker = client(hosts=("digits.example",))
    for path in ("/health", "/api", "/"):
        response = asker.get(path, headers={"Host": host})
        assert response.status_code == status
        assert status == 200 or response.json["error"]["code"] == "forbidden"


def test_service_of_a_network_is_reached_under_any_name() -> None:
    asker = client(host="0.0.0.0")
    assert asker.get("/health", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://other.localhost"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_page_of_another_origin_changes_nothing(headers: dict[str, str], status: int) -> None:
    reader = FakeReader()
    asker = create_app(Settings(page="off"), reader).test_client()
    reader.read.clear()
    assert send_digit(asker, **headers).status_code == status
    assert len(reader.read) == (status == 200)


def test_other_origins_may_call_the_api_only_as_configured() -> None:
    asker = client(cors_origins=("https://friend.example",))
    friend = {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}
    response = send_digit(asker, **friend)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == "https://friend.example"
    assert "Access-Control-Allow-Credentials" not in response.headers
    preflight = asker.options("/predict", headers=friend)
    assert preflight.headers["Access-Control-Allow-Headers"].startswith("Content-Type")
    stranger = asker.get("/health", headers={"Origin": "https://evil.example"})
    page = asker.get("/docs", headers=friend)
    for response in (stranger, page):
        assert "Access-Control-Allow-Origin" not in response.headers


def test_bucket_empties_and_fills_again() -> None:
    now = [100.0]
    buckets = TokenBuckets(30, clock=lambda: now[0])
    for _ in range(5):
        buckets.take("ada")
    with pytest.raises(TooManyRequestsError) as caught:
        buckets.take("ada")
    assert caught.value.retry_after == 2
    buckets.take("bob")
    now[0] += 2
    buckets.take("ada")
    with pytest.raises(TooManyRequestsError):
        buckets.take("ada")
    now[0] += 3600
    for _ in range(5):
        buckets.take("ada")
    with pytest.raises(TooManyRequestsError):
        buckets.take("ada")


def test_least_rate_still_lets_one_through() -> None:
    buckets = TokenBuckets(1, clock=lambda: 0.0)
    buckets.take("ada")
    with pytest.raises(TooManyRequestsError) as caught:
        buckets.take("ada")
    assert caught.value.retry_after == 60


def test_clients_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkdigits.serving.api.access._MAX_CLIENTS", 3)
    buckets = TokenBuckets(6, clock=lambda: 0.0)
    for name in "abcd":
        buckets.take(name)
    assert list(buckets._buckets) == ["b", "c", "d"]


def test_refusal_says_when_to_ask_again_and_health_checks_are_free() -> None:
    asker = client(rate_limit=6)
    assert send_digit(asker).status_code == 200
    response = send_digit(asker)
    assert (response.status_code, response.json["error"]["code"]) == (429, "too_many_requests")
    assert 1 <= int(response.headers["Retry-After"]) <= 10
    assert [asker.get(path).status_code for path in sorted(OPEN_PATHS)] == [200] * 5


def test_each_key_has_its_own_rate_and_guesses_share_the_address() -> None:
    asker = client(rate_limit=6, api_keys=KEYS)
    assert send_digit(asker, X_API_Key="guess").status_code == 401
    assert send_digit(asker, X_API_Key="other guess").status_code == 429
    assert send_digit(asker, X_API_Key=KEY).status_code == 200
    assert send_digit(asker, X_API_Key=KEY).status_code == 429
    assert send_digit(asker, X_API_Key="ink_of-bob").status_code == 200


def test_clients_behind_a_trusted_proxy_are_told_apart() -> None:
    def statuses(asker: FlaskClient) -> list[int]:
        return [
            send_digit(asker, X_Forwarded_For=address).status_code
            for address in ("192.0.2.1", "192.0.2.2")
        ]

    assert statuses(client(rate_limit=6)) == [200, 429]
    assert statuses(client(rate_limit=6, trusted_proxies=("127.0.0.0/8",))) == [200, 200]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.9", "198.51.100.1", "192.0.2.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.5, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("", "198.51.100.1", "unknown"),
    ],
)
def test_address_is_the_last_that_no_trusted_proxy_wrote_for_itself(
    peer: str, forwarded: str, client: str
) -> None:
    builder = EnvironBuilder(headers={"X-Forwarded-For": forwarded} if forwarded else {})
    request = Request({**builder.get_environ(), "REMOTE_ADDR": peer})
    assert client_address(request, [ip_network("10.0.0.0/8")]) == client
