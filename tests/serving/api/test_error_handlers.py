import inspect
import re

import pytest
from support.answers import code_of
from support.fakes import send_digit
from support.repository import REPOSITORY
from werkzeug.test import EnvironBuilder

from inkdigits import errors
from inkdigits.serving.api.error_handlers import HTTP_CODES, STATUSES, status_and_code

BASE = errors.InkdigitsError
TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BASE)]
# Raised by commands, at the start or by a defect: a request that meets one gets 500.
NOT_OF_A_REQUEST = {
    *(BASE, errors.ConfigError, errors.ServiceError, errors.DataError),
    *(errors.ArtifactError, errors.ArtifactNotFoundError, errors.ArtifactCorruptError),
    *(
        errors.UndescribedRouteError,
        errors.ArtifactVersionError,
        errors.NoThresholdError,
        errors.TrainingError,
    ),
    *(errors.BatchError, errors.RegistryError, errors.InferenceError),
}


def example(kind):
    special = {errors.RequestDeniedError: (422, "other", "no"), errors.TooManyRequestsError: (3,)}
    return kind(*special.get(kind, ("what happened",)))


def test_every_error_that_a_request_can_raise_has_a_status():
    without = {kind for kind in TREE if status_and_code(example(kind))[0] == 500}
    assert without == NOT_OF_A_REQUEST


@pytest.mark.parametrize("kind", TREE)
def test_any_error_of_the_tree_is_answered_in_json(client, reader, kind):
    reader.failure = example(kind)
    response = send_digit(client, Accept="text/html")
    assert code_of(response) == status_and_code(example(kind))
    assert ("Retry-After" in response.headers) == (response.status_code in (429, 503))
    assert (str(example(kind)) in response.json["error"]["message"]) == (
        response.status_code != 500
    )


def test_failure_that_nobody_foresaw_is_in_the_log_and_not_in_the_answer(client, reader, caplog):
    reader.failure = ZeroDivisionError("secret detail")
    response = send_digit(client, X_Request_ID="r1")
    assert code_of(response) == (500, "internal_error")
    assert "r1" in response.json["error"]["message"]
    assert "secret detail" not in response.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    "oddity",
    [
        *({"HTTP_HOST": "\xff"}, {"HTTP_HOST": "[::"}, {"PATH_INFO": "/\xff"}, {"PATH_INFO": ""}),
        *({"REQUEST_METHOD": "\xff"}, {"CONTENT_LENGTH": "x"}, {"CONTENT_LENGTH": "-1"}),
        *({"CONTENT_TYPE": "multipart/form-data"}, {"CONTENT_TYPE": "\xff/\xff"}),
        *({"QUERY_STRING": "risk=%ff"}, {"HTTP_AUTHORIZATION": "Basic \xff"}),
        *({"HTTP_CONTENT_ENCODING": "\xff"}, {"HTTP_ORIGIN": "\xff"}, {"PATH_INFO": "/v2/\xff"}),
    ],
)
def test_request_that_no_client_should_send_is_answered_in_json(client, oddity):
    builder = EnvironBuilder("/predict", method="POST", data=b"text", content_type="image/png")
    environ = {**builder.get_environ(), "HTTP_ACCEPT": "text/html", **oddity}
    response = client.run_wsgi_app(environ, buffered=True)
    assert response[1].startswith("4")
    assert b'"error"' in b"".join(response[0])


def test_unknown_path_and_wrong_method_are_json_too(client):
    missing = client.get("/nowhere")
    assert code_of(missing) == (404, "not_found")
    assert "/docs" in missing.json["error"]["message"]
    response = client.get("/predict")
    message = response.json["error"]["message"]
    assert message.startswith("/predict supports POST.")
    assert message.endswith("curl -F image=@seven.png http://localhost/predict")
    assert code_of(response) == (405, "method_not_allowed")
    for path, sent in (("/predict", {}), ("/read", {"data": {"picture": "x"}})):
        message = client.post(path, **sent).json["error"]["message"]
        assert message.endswith(f"curl -F image=@seven.png http://localhost{path}")
    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


def test_every_code_has_one_status_and_is_documented():
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, re.MULTILINE)
    known = {*STATUSES.values(), *((status, code) for code, status in HTTP_CODES.items())}
    assert len(table) == len({code for _, code in known}) == len(known)
    assert {(int(status), code) for status, code in table} == known
