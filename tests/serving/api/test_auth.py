"""API keys, rates and addresses: who is let in, and who isn't."""

from __future__ import annotations

import base64
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Request
from flask.testing import FlaskClient
from support.fakes import FakeReader, drawn_digit
from werkzeug.test import EnvironBuilder

from inkdigits.cli.main import main
from inkdigits.errors import ConfigError, TooManyRequestsError
from inkdigits.log.store import Store
from inkdigits.serving.api.auth import (
    OPEN_PATHS,
    ApiKey,
    TokenBuckets,
    client_address,
    digest_of,
    load_keys,
    name_of,
    new_key,
)
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings, parse_api_keys

KEY = "ink_of-ada"
KEYS = (("ada", digest_of(KEY)), ("bob", digest_of("ink_of-bob")))
TOKEN = "the-operators-token"


def client(**settings: Any) -> FlaskClient:
    return create_app(Settings(**{"page": "off", **settings}), FakeReader()).test_client()


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def ask(client: FlaskClient, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/predict", data=drawn_digit(), content_type="image/png", headers=named)


class TestKeys:
    def test_nobody_needs_a_key_where_there_is_none(self) -> None:
        assert ask(client()).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"X_API_Key": KEY},
            {"X_API_Key": "ink_of-bob"},
            {"Authorization": f"Bearer {KEY}"},
            {"Authorization": f"bearer {KEY}"},
            {"Authorization": basic(KEY)},
            {"Authorization": f"Bearer {TOKEN}"},
        ],
    )
    def test_key_opens_in_every_way_to_bring_it(self, headers: dict[str, str]) -> None:
        assert ask(client(api_keys=KEYS, admin_token=TOKEN), **headers).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"X_API_Key": ""},
            {"X_API_Key": KEY + "x"},
            {"X_API_Key": KEYS[0][1]},
            {"X_API_Key": "ä\x80"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer a=b"},
            {"Authorization": basic("")},
            {"Authorization": "Basic !"},
            {"Authorization": f"Digest {KEY}"},
            {"Authorization": f"Bearer {TOKEN}x"},
        ],
    )
    def test_anything_else_does_not(self, headers: dict[str, str]) -> None:
        response = ask(client(api_keys=KEYS, admin_token=TOKEN), **headers)
        assert (response.status_code, response.json["error"]["code"]) == (401, "key_required")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    def test_everything_but_the_health_checks_needs_one(self, tmp_path: Path) -> None:
        settings = Settings(data_dir=tmp_path, api_keys=KEYS)
        with Store.open(settings.log_url, outbox_dir=settings.outbox_folder) as store:
            app = create_app(settings, FakeReader(), store)
        asker = app.test_client()
        for rule in app.url_map.iter_rules():
            for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
                response = asker.open(rule.rule, method=method)
                assert (response.status_code != 401) == (rule.rule in OPEN_PATHS), rule.rule
        assert asker.get("/nowhere").status_code == 401
        page = asker.get("/", headers={"Accept": "text/html"})
        assert page.headers["WWW-Authenticate"].startswith("Basic ")
        headers = {"Accept": "text/html", "Authorization": basic(KEY)}
        assert asker.get("/", headers=headers).status_code == 200

    def test_preflight_of_an_allowed_page_needs_none_and_may_bring_one(self) -> None:
        asker = client(api_keys=KEYS, cors_origins=("https://a.example",))
        response = asker.options("/predict", headers={"Origin": "https://a.example"})
        assert response.status_code == 200
        assert "X-API-Key" in response.headers["Access-Control-Allow-Headers"]

    def test_document_says_whether_a_key_is_needed(self) -> None:
        assert client().get("/openapi.json").json["security"] == [{}]
        headers = {"X-API-Key": KEY}
        document = client(api_keys=KEYS).get("/openapi.json", headers=headers).json
        schemes = document["components"]["securitySchemes"]
        assert [next(iter(choice)) for choice in document["security"]] == list(schemes)
        assert document["paths"]["/health"]["get"]["security"] == [{}]

    def test_every_key_is_compared(self) -> None:
        keys = [ApiKey(*pair) for pair in KEYS]
        assert [name_of(key, keys) for key in (KEY, "ink_of-bob", "x")] == ["ada", "bob", None]

    def test_file_and_setting_are_added_up(self, tmp_path: Path) -> None:
        path = tmp_path / "keys"
        path.write_text(f"# of the clerks\n\n{KEYS[1][0]}:{KEYS[1][1]}\n")
        keys = load_keys(Settings(api_keys=KEYS[:1], api_keys_file=path))
        assert [key.name for key in keys] == ["ada", "bob"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [("# none\n", "has no key"), ("ada:hunter2", "key 1 isn't"), (None, "can't be read")],
    )
    def test_file_that_cannot_be_used_is_an_error(
        self, tmp_path: Path, text: str | None, message: str
    ) -> None:
        path = tmp_path / "keys"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            load_keys(Settings(api_keys_file=path))
        assert str(path) in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_two_keys_of_one_name_are_an_error(self) -> None:
        with pytest.raises(ConfigError, match="'ada'"):
            load_keys(Settings(api_keys=KEYS[:1] * 2))

    def test_command_makes_a_key_and_the_line_for_it(self) -> None:
        result = CliRunner().invoke(main, ["key", "ada"])
        assert result.exit_code == 0
        made, line = (row.split()[1] for row in result.stdout.splitlines())
        assert parse_api_keys(line) == (("ada", digest_of(made)),)
        assert len({made, new_key(), new_key()}) == 3
        assert CliRunner().invoke(main, ["key", "a b"]).exit_code == 1


class TestRate:
    def test_bucket_empties_and_fills_again(self) -> None:
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

    def test_least_rate_still_lets_one_through(self) -> None:
        buckets = TokenBuckets(1, clock=lambda: 0.0)
        buckets.take("ada")
        with pytest.raises(TooManyRequestsError) as caught:
            buckets.take("ada")
        assert caught.value.retry_after == 60

    def test_clients_are_forgotten_before_they_fill_the_memory(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("inkdigits.serving.api.auth._MAX_CLIENTS", 3)
        buckets = TokenBuckets(6, clock=lambda: 0.0)
        for name in "abcd":
            buckets.take(name)
        assert list(buckets._buckets) == ["b", "c", "d"]

    def test_refusal_says_when_to_ask_again_and_health_checks_are_free(self) -> None:
        asker = client(rate_limit=6)
        assert ask(asker).status_code == 200
        response = ask(asker)
        assert (response.status_code, response.json["error"]["code"]) == (429, "too_many_requests")
        assert 1 <= int(response.headers["Retry-After"]) <= 10
        assert [asker.get(path).status_code for path in sorted(OPEN_PATHS)] == [200] * 5

    def test_each_key_has_its_own_rate_and_guesses_share_the_address(self) -> None:
        asker = client(rate_limit=6, api_keys=KEYS)
        assert ask(asker, X_API_Key="guess").status_code == 401
        assert ask(asker, X_API_Key="other guess").status_code == 429
        assert ask(asker, X_API_Key=KEY).status_code == 200
        assert ask(asker, X_API_Key=KEY).status_code == 429
        assert ask(asker, X_API_Key="ink_of-bob").status_code == 200

    def test_clients_behind_a_trusted_proxy_are_told_apart(self) -> None:
        def statuses(asker: FlaskClient) -> list[int]:
            return [
                ask(asker, X_Forwarded_For=address).status_code
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
