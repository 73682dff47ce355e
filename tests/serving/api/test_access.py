import itertools
from ipaddress import ip_network

import pytest
from flask import Request
from support.answers import KEY, KEYS, asker, code_of
from support.fakes import drawn_digit, send_digit
from werkzeug.test import EnvironBuilder

from inkdigits.serving.api.access import OPEN_PATHS, client_address


@pytest.mark.parametrize(
    ("outcome", "hosts"),
    [
        (None, ("localhost:5000", "LOCALHOST", "ink.localhost", "digits.example:80")),
        (None, ("127.0.0.1:5000", "127.8.8.8", "[::1]:5000")),
        ((403, "forbidden"), ("evil.example", "localhost.evil.example", "evil.example:5000")),
        ((403, "forbidden"), ("192.0.2.1", "[::", "")),
    ],
)
def test_service_of_this_machine_only_knows_its_own_names(outcome, hosts):
    client = asker(hosts=("digits.example",))
    for host, path in itertools.product(hosts, ("/health", "/api", "/")):
        response = client.get(path, headers={"Host": host})
        assert (None if response.status_code == 200 else code_of(response)) == outcome, host


def test_service_of_a_network_is_reached_under_any_name():
    headers = {"Host": "any.example"}
    assert asker(host="0.0.0.0").get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        *((site, None, 200) for site in (None, "same-origin", "none")),
        (None, "http://localhost", 200),
        ("cross-site", None, 403),
        ("same-site", "http://other.localhost", 403),
        *((None, origin, 403) for origin in ("https://evil.example", "null")),
    ],
)
def test_page_of_another_origin_changes_nothing(client, reader, site, origin, status):
    reader.received.clear()
    headers = {"Sec-Fetch-Site": site, "Origin": origin}
    sent = {name: value for name, value in headers.items() if value}
    assert send_digit(client, **sent).status_code == status
    assert len(reader.received) == (status == 200)


def test_other_origins_may_call_the_api_only_as_configured():
    client = asker(cors_origins=("https://friend.example",))
    friend = {"Origin": "https://friend.example", "Sec-Fetch-Site": "cross-site"}
    response = send_digit(client, **friend)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == "https://friend.example"
    assert "Access-Control-Allow-Credentials" not in response.headers
    preflight = client.options("/predict", headers=friend)
    assert preflight.headers["Access-Control-Allow-Headers"].startswith("Content-Type")
    for path, headers in (("/health", {"Origin": "https://evil.example"}), ("/docs", friend)):
        assert "Access-Control-Allow-Origin" not in client.get(path, headers=headers).headers


def test_denied_request_says_when_to_ask_again_and_health_checks_are_free():
    client = asker(rate_limit=1)
    first, second = send_digit(client), send_digit(client)
    assert first.status_code == 200
    assert code_of(second) == (429, "too_many_requests")
    assert 1 <= int(second.headers["Retry-After"]) <= 60
    assert [client.get(path).status_code for path in sorted(OPEN_PATHS)] == [200] * 5


def test_each_key_has_its_own_rate_and_guesses_share_the_address():
    client = asker(rate_limit=1, api_keys=KEYS)
    sent = ("guess", "other guess", KEY, KEY, "ink_of-bob")
    statuses = [send_digit(client, X_API_Key=key).status_code for key in sent]
    assert statuses == [401, 429, 200, 429, 200]


@pytest.mark.parametrize(("trusted", "second"), [((), 429), (("127.0.0.0/8",), 200)])
def test_clients_behind_a_trusted_proxy_are_told_apart(trusted, second):
    client = asker(rate_limit=1, trusted_proxies=trusted)
    for address, status in (("192.0.2.1", 200), ("192.0.2.2", second)):
        assert send_digit(client, X_Forwarded_For=address).status_code == status


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
def test_address_is_the_last_that_no_trusted_proxy_wrote_for_itself(peer, forwarded, client):
    builder = EnvironBuilder(headers={"X-Forwarded-For": forwarded} if forwarded else {})
    request = Request({**builder.get_environ(), "REMOTE_ADDR": peer})
    assert client_address(request, [ip_network("10.0.0.0/8")]) == client


FORWARDED = {
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "digits.example",
    "X-Forwarded-Prefix": "/digits",
}


def post(peer, **headers):
    sent = {"data": drawn_digit(), "content_type": "image/png", "headers": headers}
    client = asker(trusted_proxies=("10.0.0.0/8",))
    return client.post("/predict", environ_overrides={"REMOTE_ADDR": peer}, **sent)


@pytest.mark.parametrize(
    ("peer", "is_believed"),
    [
        *((peer, True) for peer in ("10.1.2.3", "::ffff:10.1.2.3")),
        *((peer, False) for peer in ("192.0.2.1", "", "no address")),
    ],
)
def test_trusted_proxy_is_believed_and_anybody_else_is_not(peer, is_believed):
    answer = post(peer, **FORWARDED)
    assert answer.status_code == 200
    assert ("Strict-Transport-Security" in answer.headers) is is_believed
    answer = post(peer, Origin="https://digits.example", **FORWARDED)
    assert answer.status_code == (200 if is_believed else 403)
    assert post(peer, Origin="https://evil.example", **FORWARDED).status_code == 403


def test_host_of_a_proxy_that_does_not_pass_the_browsers_on_is_not_compared():
    own = {"Host": "web:5000", "Origin": "https://digits.example"}
    assert post("10.1.2.3", **own).status_code == 200
    assert post("192.0.2.1", **own).status_code == 403
    foreign = {**own, "Sec-Fetch-Site": "cross-site"}
    assert post("10.1.2.3", **foreign).status_code == 403
