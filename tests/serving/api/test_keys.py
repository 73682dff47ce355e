"""API keys: every way to bring one, and what keeps them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from support.fakes import FakeReader, send_digit

from inkdigits.cli.main import main
from inkdigits.errors import ConfigError
from inkdigits.log.store import Store
from inkdigits.serving.api.access import OPEN_PATHS
from inkdigits.serving.api.keys import ApiKey, digest_of, load_keys, name_of, new_key
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings, parse_api_keys

KEY = "ink_of-ada"
KEYS = (("ada", digest_of(KEY)), ("bob", digest_of("ink_of-bob")))
TOKEN = "the-operators-token"


def client(**settings: Any) -> FlaskClient:
    return create_app(Settings(**{"page": "off", **settings}), FakeReader()).test_client()


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def test_nobody_needs_a_key_where_there_is_none() -> None:
    assert send_digit(client()).status_code == 200


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
def test_key_opens_in_every_way_to_bring_it(headers: dict[str, str]) -> None:
    assert send_digit(client(api_keys=KEYS, admin_token=TOKEN), **headers).status_code == 200


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
def test_anything_else_does_not(headers: dict[str, str]) -> None:
    response = send_digit(client(api_keys=KEYS, admin_token=TOKEN), **headers)
    assert (response.status_code, response.json["error"]["code"]) == (401, "key_required")
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_everything_but_the_health_checks_needs_one(tmp_path: Path) -> None:
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


def test_preflight_of_an_allowed_page_needs_none_and_may_bring_one() -> None:
    asker = client(api_keys=KEYS, cors_origins=("https://a.example",))
    response = asker.options("/predict", headers={"Origin": "https://a.example"})
    assert response.status_code == 200
    assert "X-API-Key" in response.headers["Access-Control-Allow-Headers"]


def test_document_says_whether_a_key_is_needed() -> None:
    assert client().get("/openapi.json").json["security"] == [{}]
    headers = {"X-API-Key": KEY}
    document = client(api_keys=KEYS).get("/openapi.json", headers=headers).json
    schemes = document["components"]["securitySchemes"]
    assert [next(iter(choice)) for choice in document["security"]] == list(schemes)
    assert document["paths"]["/health"]["get"]["security"] == [{}]


def test_every_key_is_compared() -> None:
    keys = [ApiKey(*pair) for pair in KEYS]
    assert [name_of(key, keys) for key in (KEY, "ink_of-bob", "x")] == ["ada", "bob", None]


def test_file_and_setting_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# of the clerks\n\n{KEYS[1][0]}:{KEYS[1][1]}\n")
    keys = load_keys(Settings(api_keys=KEYS[:1], api_keys_file=path))
    assert [key.name for key in keys] == ["ada", "bob"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("# none\n", "has no key"), ("ada:hunter2", "key 1 isn't"), (None, "cannot be read")],
)
def test_file_that_cannot_be_used_is_an_error(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_keys(Settings(api_keys_file=path))
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_two_keys_of_one_name_are_an_error() -> None:
    with pytest.raises(ConfigError, match="'ada'"):
        load_keys(Settings(api_keys=KEYS[:1] * 2))


def test_command_makes_a_key_and_the_line_for_it() -> None:
    result = CliRunner().invoke(main, ["key", "ada"])
    assert result.exit_code == 0
    made, line = (row.split()[1] for row in result.stdout.splitlines())
    assert parse_api_keys(line) == (("ada", digest_of(made)),)
    assert len({made, new_key(), new_key()}) == 3
    assert CliRunner().invoke(main, ["key", "a b"]).exit_code == 1
