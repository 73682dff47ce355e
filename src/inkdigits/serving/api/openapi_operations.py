"""What each route is for, takes and answers, as far as no code says it; for ``openapi``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from inkdigits.serving.api.openapi_schemas import ref
from inkdigits.types import Json

Answers: TypeAlias = Mapping[int, tuple[str, Json]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one route.

    Attributes:
        summary: what it is for.
        tag: the group that it belongs to.
        answers: status → description, and schema by media type; errors are in ``codes``.
        codes: of the errors that it may answer; see ``refusals``.
        query: parameter → schema and meaning.
        body: schema by media type; empty where there is none.
        has_plain_errors: whether an error is one string, as the Open Inference Protocol has it.
    """

    summary: str
    tag: str
    answers: Answers
    codes: tuple[str, ...] = ()
    query: Mapping[str, tuple[Json, str]] = field(default_factory=dict)
    body: Mapping[str, Json] = field(default_factory=dict)
    has_plain_errors: bool = False


_FREE: Final[Json] = {"type": "object"}
_BINARY: Final[Json] = {"type": "string", "contentMediaType": "application/octet-stream"}
_SHARE: Final[Json] = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_BOOLEAN: Final[Json] = {"type": "boolean"}
_STRING: Final[Json] = {"type": "string"}

_BODY_CODES: Final = (
    *("empty_body", "incomplete_body", "body_too_large", "unsupported_media_type"),
    *("invalid_json", "missing_field", "wrong_shape", "invalid_risk", "too_many_pictures"),
)
_PICTURE_CODES: Final = (
    *("invalid_base64", "invalid_data_url", "image_too_large", "unsupported_image"),
    *("not_an_image", "not_ready", "model_unavailable", "client_gone"),
)
_READING_CODES: Final = (*_BODY_CODES, *_PICTURE_CODES, "forbidden")
_READING_BODY: Final[Mapping[str, Json]] = {
    "application/json": {"anyOf": [ref("Picture"), ref("Pictures")]},
    "image/*": _BINARY,
    "application/octet-stream": _BINARY,
    "multipart/form-data": ref("Form"),
}
_HISTORY_CODES: Final = (
    *("history_unavailable", "invalid_query", "not_found", "wrong_value", "wrong_shape"),
)
_PAGE_FORM: Final[Mapping[str, Json]] = {"application/x-www-form-urlencoded": _FREE}


def _json(description: str, schema: Json) -> tuple[str, Json]:
    return description, {"application/json": schema}


def _page(description: str) -> tuple[str, Json]:
    return description, {"text/html": _STRING}


def _changing(summary: str, *codes: str) -> Operation:
    return Operation(
        summary=summary,
        tag="page",
        answers={
            200: _json("For scripts.", _FREE),
            303: _page("For forms: back to the history."),
        },
        codes=(*_HISTORY_CODES, "forbidden", "body_too_large", *codes),
        body=_PAGE_FORM,
    )


def _open_inference() -> dict[tuple[str, str], Operation]:
    def get(summary: str, answer: Json, *codes: str) -> Operation:
        return Operation(
            summary=summary,
            tag="inference",
            answers={200: _json("As the protocol has it.", answer)},
            codes=codes,
            has_plain_errors=True,
        )

    infer = Operation(
        summary="Run a model on one input tensor, JSON or binary",
        tag="inference",
        answers={
            200: (
                "The outputs of at most {max_batch} pictures; binary tensors follow the JSON.",
                {"application/json": ref("InferenceAnswer"), "application/octet-stream": _BINARY},
            )
        },
        codes=(
            *("empty_body", "incomplete_body", "body_too_large", "too_many_pictures"),
            *("invalid_tensor", "invalid_encoding", "unsupported_encoding", "unknown_model"),
            *(*_PICTURE_CODES, "forbidden"),
        ),
        body={"application/json": ref("InferenceRequest"), "application/octet-stream": _BINARY},
        has_plain_errors=True,
    )
    found: dict[tuple[str, str], Operation] = {
        ("GET", "/v2"): get("The server, by the Open Inference Protocol v2", _FREE),
        ("GET", "/v2/health/live"): get("Whether the process answers", _FREE),
        ("GET", "/v2/health/ready"): get(
            "Whether to send it requests", _FREE, "not_ready", "model_unavailable"
        ),
    }
    for path in ("/v2/models/<name>", "/v2/models/<name>/versions/<model_version>"):
        found["GET", path] = get("A model's inputs and outputs", _FREE, "unknown_model")
        found["GET", path + "/ready"] = get(
            *("Whether the model can be asked", _FREE),
            *("unknown_model", "not_ready", "model_unavailable"),
        )
        found["POST", path + "/infer"] = infer
    return found


OPERATIONS: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/predict"): Operation(
        summary="Read a picture of a handwritten digit, or a batch of them",
        tag="reading",
        answers={
            200: _json(
                "What was read; of a batch of at most {max_batch}, in its order, errors in place.",
                {"oneOf": [ref("Prediction"), ref("Predictions")]},
            )
        },
        codes=_READING_CODES,
        query={
            "ink": (_BOOLEAN, "add the 28 x 28 picture that the model saw"),
            "record": (_BOOLEAN, "keep the reading in the prediction log"),
            "risk": (_SHARE, "tolerated share of wrong readings among the accepted"),
            "explain": (_BOOLEAN, "add what the reading of a single picture rests on"),
        },
        body=_READING_BODY,
    ),
    ("GET", "/health"): Operation(
        summary="Whether pictures can be read, and by which model",
        tag="health",
        answers={
            200: _json("They can.", ref("Health")),
            503: _json("They can't.", {"allOf": [ref("Health"), ref("Error")]}),
        },
        codes=("not_ready", "model_unavailable"),
    ),
    ("GET", "/health/live"): Operation(
        summary="Whether the process answers",
        tag="health",
        answers={200: _json("It does.", ref("Status"))},
    ),
    ("GET", "/health/ready"): Operation(
        summary="Whether to send it requests",
        tag="health",
        answers={200: _json("Do.", ref("Status"))},
        codes=("not_ready", "model_unavailable"),
    ),
    **_open_inference(),
    ("GET", "/metrics"): Operation(
        summary="What the service counts and times, for Prometheus",
        tag="health",
        answers={200: ("The figures of all workers.", {"text/plain": _STRING})},
    ),
    ("GET", "/api"): Operation(
        summary="Name, version and the list of endpoints",
        tag="about",
        answers={200: _json("The list.", _FREE)},
    ),
    ("GET", "/api/model"): Operation(
        summary="What the model says of itself",
        tag="about",
        answers={200: _json("Its metadata.", _FREE)},
        codes=("not_found", "model_unavailable"),
    ),
    ("GET", "/openapi.json"): Operation(
        summary="This document", tag="about", answers={200: _json("The document.", _FREE)}
    ),
    ("GET", "/docs"): Operation(
        summary="This document as a page", tag="about", answers={200: _page("The page.")}
    ),
    ("GET", "/docs/style.css"): Operation(
        summary="The style of that page",
        tag="about",
        answers={
            200: ("The style.", {"text/css": _STRING}),
        },
    ),
    ("GET", "/"): Operation(
        summary="The page to draw on, or for programs the list of endpoints",
        tag="page",
        answers={
            200: ("As the client prefers.", {"application/json": _FREE, "text/html": _STRING})
        },
    ),
    ("POST", "/history"): Operation(
        summary="Read a finished drawing and keep it; needs the page's token",
        tag="page",
        answers={200: _json("What was read, and whether it was kept.", ref("Prediction"))},
        codes=(*_READING_CODES, "invalid_query"),
        query={
            "kind": ({"enum": ["drawn", "uploaded"]}, "where the picture is from"),
            "replaces": (_STRING, "the id of the drawing that this one was drawn on from"),
        },
        body=_READING_BODY,
    ),
    ("GET", "/history"): Operation(
        summary="What was read",
        tag="page",
        answers={200: _page("The history."), 503: _page("The log is away.")},
        codes=_HISTORY_CODES,
    ),
    ("POST", "/history/<record_id>/feedback"): _changing("Say what a picture shows"),
    ("POST", "/history/<record_id>/delete"): _changing("Delete a reading"),
    ("POST", "/history/delete"): _changing("Delete all readings", "bad_request"),
    ("GET", "/history/export"): Operation(
        summary="The readings as a file",
        tag="page",
        answers={
            200: (
                "The file.",
                {
                    "text/csv": _STRING,
                    "application/vnd.apache.parquet": _BINARY,
                    "application/zip": _BINARY,
                },
            )
        },
        codes=(*_HISTORY_CODES, "not_installed"),
        query={"format": ({"enum": ["csv", "parquet", "idx"]}, "csv unless said otherwise")},
    ),
    ("GET", "/dashboard"): Operation(
        summary="Figures of what was read",
        tag="page",
        answers={200: _page("The dashboard."), 503: _page("The log is away.")},
        codes=_HISTORY_CODES,
        query={"span": ({"enum": ["day", "month", "all"]}, "month unless said otherwise")},
    ),
    ("GET", "/model"): Operation(
        summary="The model's page",
        tag="page",
        answers={200: _page("The page."), 503: _page("The model is away.")},
    ),
    ("GET", "/sign-in"): Operation(
        summary="The operator's sign-in",
        tag="page",
        answers={200: _page("The form.")},
        codes=("not_found",),
    ),
    ("POST", "/sign-in"): Operation(
        summary="Sign in as the operator; needs the page's token",
        tag="page",
        answers={303: _page("To the history."), 403: _page("Not the token.")},
        codes=("not_found", "forbidden", "body_too_large"),
        body=_PAGE_FORM,
    ),
    ("POST", "/sign-out"): Operation(
        summary="Sign out; needs the page's token",
        tag="page",
        answers={303: _page("To the history.")},
        codes=("forbidden", "body_too_large"),
        body=_PAGE_FORM,
    ),
    ("GET", "/static/<path:filename>"): Operation(
        summary="The page's own files",
        tag="page",
        answers={
            200: ("The file.", {"*/*": _BINARY}),
            206: ("Part of it.", {"*/*": _BINARY}),
            304: ("As the client has it.", {"*/*": _BINARY}),
        },
        codes=("not_found", "requested_range_not_satisfiable"),
    ),
}
"""(method, Flask's rule) → what it does."""
