import base64

import pytest
from click.testing import CliRunner
from support.answers import KEY, KEYS, asker, code_of
from support.browser import HTML, TOKEN
from support.databases import PATIENT
from support.fakes import FakeReader, send_digit

from inkdigits.cli.main import main
from inkdigits.errors import ConfigError
from inkdigits.log.store import Store
from inkdigits.serving.api.access import OPEN_PATHS
from inkdigits.serving.api.keys import digest_of, load_keys, new_key
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings, parse_api_keys


def basic(password):
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def test_key_opens_in_every_way_to_bring_it_and_anything_else_does_not():
    client = asker(api_keys=KEYS, admin_token=TOKEN)
    bearers = (f"Bearer {KEY}", f"bearer {KEY}", basic(KEY), f"Bearer {TOKEN}")
    wrong = ("Bearer ", "Bearer a=b", f"Bearer {TOKEN}x", basic(""), "Basic !", f"Digest {KEY}")
    right = [{"X_API_Key": key} for key in (KEY, "ink_of-bob")]
    for headers in (*right, *({"Authorization": value} for value in bearers)):
        assert send_digit(client, **headers).status_code == 200, headers
    other = [{}, *({"X_API_Key": key} for key in ("", KEY + "x", KEYS[0][1], "ä\x80"))]
    for headers in (*other, *({"Authorization": value} for value in wrong)):
        response = send_digit(client, **headers)
        assert code_of(response) == (401, "key_required"), headers
        assert response.headers["WWW-Authenticate"] == "Bearer"


def test_everything_but_the_health_checks_needs_one(tmp_path):
    settings = Settings(data_dir=tmp_path, api_keys=KEYS)
    with Store(settings.log_url, outbox_dir=settings.outbox_folder, options=PATIENT) as store:
        app = create_app(settings, FakeReader(), store)
    client = app.test_client()
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
            response = client.open(rule.rule, method=method)
            assert (response.status_code != 401) == (rule.rule in OPEN_PATHS), rule.rule
    assert client.get("/nowhere").status_code == 401
    page = client.get("/", headers=HTML)
    assert page.headers["WWW-Authenticate"].startswith("Basic ")
    assert client.get("/", headers={**HTML, "Authorization": basic(KEY)}).status_code == 200


def test_preflight_and_document_say_that_a_key_may_or_must_be_brought():
    client = asker(api_keys=KEYS, cors_origins=("https://a.example",))
    response = client.options("/predict", headers={"Origin": "https://a.example"})
    assert response.status_code == 200
    assert "X-API-Key" in response.headers["Access-Control-Allow-Headers"]
    document = client.get("/openapi.json", headers={"X-API-Key": KEY}).json
    schemes = document["components"]["securitySchemes"]
    assert [next(iter(choice)) for choice in document["security"]] == list(schemes)
    assert document["paths"]["/health"]["get"]["security"] == [{}]
    assert asker().get("/openapi.json").json["security"] == [{}]


def test_file_and_setting_are_added_up_without_two_keys_of_one_name(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# of the clerks\n\n{KEYS[1][0]}:{KEYS[1][1]}\n")
    keys = load_keys(Settings(api_keys=KEYS[:1], api_keys_file=path))
    assert [key.name for key in keys] == ["ada", "bob"]
    with pytest.raises(ConfigError, match="'ada'"):
        load_keys(Settings(api_keys=KEYS[:1] * 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [("# none\n", "has no key"), ("ada:hunter2", "key 1 is not"), (None, "cannot be read")],
)
def test_file_that_cannot_be_used_is_an_error(tmp_path, text, message):
    path = tmp_path / "keys"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_keys(Settings(api_keys_file=path))
    assert str(path) in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_command_makes_a_key_and_the_line_for_it():
    result = CliRunner().invoke(main, ["key", "ada"])
    assert result.exit_code == 0
    made, line = (row.split()[1] for row in result.stdout.splitlines())
    assert parse_api_keys(line) == (("ada", digest_of(made)),)
    assert len({made, new_key(), new_key()}) == 3
    assert CliRunner().invoke(main, ["key", "a b"]).exit_code == 2
