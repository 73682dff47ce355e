import re

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from support.databases import PATIENT
from support.fakes import FakeReader

from inkdigits.errors import UndescribedRouteError
from inkdigits.log.store import Store
from inkdigits.serving.api.error_handlers import HTTP_CODES, STATUSES
from inkdigits.serving.api.openapi import OPERATIONS, document, routes
from inkdigits.serving.app import create_app
from inkdigits.settings import Settings

load_all_checks()
PROMISES = CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance"]
    + [f"{part}_conformance" for part in ("content_type", "response_schema")]
)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    limits = {"max_bytes": 4096, "max_batch": 3, "max_pixels": 5000}
    ours = Settings(data_dir=tmp_path_factory.mktemp("data"), **limits)
    with Store(ours.log_url, outbox_dir=ours.outbox_folder, options=PATIENT) as store:
        yield create_app(ours, FakeReader(max_pixels=5000), store)


@pytest.fixture(scope="module")
def described(app):
    return app.test_client().get("/openapi.json").json


@pytest.fixture(scope="module")
def schema(app):
    def closing(environ, start):
        # Schemathesis doesn't close an answer, as every server does; an export is a file.
        answer = app(environ, start)
        try:
            return [b"".join(answer)]
        finally:
            answer.close()

    return schemathesis.openapi.from_wsgi("/openapi.json", closing)


def in_braces(rule):
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


# Nothing keeps a page's forms from being anything, so only the API can be called wrongly.
CASES = [
    (method, rule, mode)
    for method, rule in sorted(OPERATIONS)
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE
    or (method == "POST" and rule.startswith(("/predict", "/v2")))
]


@pytest.mark.parametrize(("method", "rule", "mode"), CASES)
def test_every_answer_is_one_that_the_document_promises(schema, method, rule, mode):
    cases = schema[in_braces(rule)][method].as_strategy(generation_mode=mode)
    how = {"max_examples": 10, "deadline": None, "derandomize": True, "database": None}

    @settings(suppress_health_check=list(HealthCheck), **how)
    @given(case=cases)
    def promises_hold(case):
        case.call_and_validate(checks=PROMISES)

    promises_hold()


def test_document_is_of_openapi_3_1_with_the_limits_of_the_settings(described):
    assert re.fullmatch(r"3\.1\.\d+", described["openapi"])
    schemas = described["components"]["schemas"]
    # Each schema is referred to, and each reference leads to one.
    assert set(re.findall(r"'#/components/schemas/(\w+)'", str(described))) == set(schemas)
    limits = {"max_bytes": 4096, "max_batch": 3, "max_pixels": 5000, "max_form_parts": 16}
    assert described["x-limits"] == limits
    assert schemas["Pictures"]["properties"]["images"]["maxItems"] == 3
    assert "up to 4,096 bytes and 3 pictures" in described["info"]["description"]
    described = create_app(Settings(), FakeReader()).test_client().get("/openapi.json").json
    assert "up to 10 MiB and 64 pictures" in described["info"]["description"]


def test_every_route_is_described_and_nothing_else_is(app, described):
    there = {(method, in_braces(rule)) for method, rule in routes(app)}
    told = {(method.upper(), path) for path, one in described["paths"].items() for method in one}
    assert told == there
    assert set(OPERATIONS) == set(routes(app))
    other = create_app(Settings(page="off"), FakeReader())
    other.add_url_rule("/secret", view_func=lambda: "")
    with pytest.raises(UndescribedRouteError, match="GET /secret"):
        document(other, Settings(), "0")


def test_every_error_code_is_documented_with_its_status(described):
    assigned = {(code, status) for status, code in STATUSES.values()} | set(HTTP_CODES.items())
    told = {
        (code, int(status))
        for path in described["paths"].values()
        for operation in path.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400
        for code in re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b|forbidden", answer["description"])
    }
    assert told == assigned
