"""The JSON bodies of the API as types: mypy checks the code against them, OpenAPI shows them.

They validate nothing at run time: ``requests`` does. ``openapi`` adds limits that are settings.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired, TypeAlias, TypedDict

from msgspec import Meta

from inkdigits.decision.hints import MOST_DIGITS, CheckName
from inkdigits.decision.policy import Decision, NumberReason, Reason
from inkdigits.log.record import Kept, Queued

REFERENCE = "#/components/schemas/{name}"
"""Where a type's schema is in the OpenAPI document."""

Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0)]
Digit: TypeAlias = Annotated[int, Meta(ge=0, le=9)]
SaliencyRow: TypeAlias = Annotated[list[float], Meta(min_length=28, max_length=28)]
Base64: TypeAlias = Annotated[str, Meta(extra_json_schema={"contentEncoding": "base64"})]
Binary: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"contentMediaType": "application/octet-stream"})
]
EncodedPicture: TypeAlias = Annotated[
    str, Meta(description="Base64 or a data URL of a PNG, JPEG, WebP, BMP, GIF or TIFF.")
]
Risk: TypeAlias = Annotated[
    float, Meta(gt=0, lt=1, description="Tolerated share of wrong accepted readings.")
]


class Picture(TypedDict):
    """One picture to read."""

    image: EncodedPicture
    risk: NotRequired[Risk]
    explain: NotRequired[Annotated[bool, Meta(description="Add an explanation.")]]


class Pictures(TypedDict):
    """A batch of pictures to read."""

    images: Annotated[list[EncodedPicture], Meta(min_length=1)]
    risk: NotRequired[Risk]


class Form(TypedDict):
    """One picture to read, sent as a form."""

    image: Annotated[str, Meta(extra_json_schema={"contentMediaType": "image/*"})]


Length: TypeAlias = Annotated[int, Meta(ge=1, le=MOST_DIGITS)]
Value: TypeAlias = Annotated[int, Meta(ge=0)]
Region: TypeAlias = Annotated[
    list[Value],
    Meta(min_length=4, max_length=4, description="Left, top, width and height, in pixels."),
]


class NumberPicture(TypedDict):
    """A picture of a number, or a page with several numbers, with hints."""

    image: EncodedPicture
    length: NotRequired[
        Annotated[int | list[Length], Meta(description="Number of digits, or minimum and maximum.")]
    ]
    min: NotRequired[Value]
    max: NotRequired[Value]
    check: NotRequired[CheckName]
    regions: NotRequired[Annotated[list[Region], Meta(min_length=1)]]
    risk: NotRequired[Risk]


class NumberOptions(TypedDict, total=False):
    """The query of ``POST /read``."""

    length: Annotated[str, Meta(description="number of digits, such as 5 or 3-8")]
    min: Annotated[int, Meta(ge=0, description="the smallest value")]
    max: Annotated[int, Meta(ge=0, description="the largest value")]
    check: Annotated[CheckName, Meta(description="kind of the check digits")]
    ink: Annotated[bool, Meta(description="add the 28 x 28 ink of each digit")]
    record: Annotated[bool, Meta(description="keep the reading in the prediction log")]
    risk: Risk


class ReadingOptions(TypedDict, total=False):
    """The query of ``POST /predict``."""

    ink: Annotated[bool, Meta(description="add the 28 x 28 input of the model")]
    record: Annotated[bool, Meta(description="keep the reading in the prediction log")]
    risk: Risk
    explain: Annotated[bool, Meta(description="add an explanation; for one picture only")]


class KeepingOptions(TypedDict, total=False):
    """The query of ``POST /history``."""

    kind: Annotated[Literal["drawn", "uploaded"], Meta(description="source of the picture")]
    replaces: Annotated[str, Meta(description="id of the drawing to replace")]
    risk: Risk


class ExportOptions(TypedDict, total=False):
    """The query of ``GET /history/export``: the format, and the filters of the history."""

    format: Annotated[Literal["csv", "parquet"], Meta(description="csv by default")]
    digit: Annotated[str, Meta(description="only readings of this digit, 0 to 9 or none")]
    decision: Annotated[Decision, Meta(description="only readings with this decision")]
    feedback: Annotated[
        Literal["given", "none", "right", "wrong"],
        Meta(description="only readings with this feedback"),
    ]
    since: Annotated[str, Meta(description="first day (YYYY-MM-DD, UTC)")]
    until: Annotated[str, Meta(description="last day (YYYY-MM-DD, UTC)")]


class QueueOptions(TypedDict, total=False):
    """The query of ``GET /review/queue``."""

    why: Annotated[Queued, Meta(description="only pictures queued for this reason")]
    after: Annotated[str, Meta(description="last id of the previous response")]


class DashboardOptions(TypedDict, total=False):
    """The query of ``GET /dashboard``."""

    span: Annotated[Literal["day", "month", "all"], Meta(description="month by default")]


class Explanation(TypedDict):
    """The evidence for a reading: the log odds of the digit that depend on each pixel."""

    runner_up: Digit | None
    runner_up_probability: Share
    ink_png: Base64
    saliency_png: Base64
    saliency: Annotated[list[SaliencyRow], Meta(min_length=28, max_length=28)]


class Prediction(TypedDict):
    """The reading of one picture."""

    prediction: Annotated[Digit | None, Meta(description="Null if the picture has no ink.")]
    confidence: Annotated[Share, Meta(description="Calibrated probability of the digit.")]
    probabilities: Annotated[list[Share], Meta(min_length=10, max_length=10)]
    decision: Decision
    reason: Reason | None
    novelty: Annotated[float | None, Meta(description="Higher means less like a digit.")]
    model_version: str
    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    kept: Annotated[Kept, Meta(description="Where the prediction is kept.")]
    preprocessing_time_ms: Milliseconds
    inference_time_ms: Milliseconds
    total_time_ms: Milliseconds
    risk: NotRequired[Annotated[Risk, Meta(description="The stated risk.")]]
    coverage: NotRequired[
        Annotated[
            Share | None,
            Meta(description="Share of calibration digits accepted at this risk."),
        ]
    ]
    explanation: NotRequired[Explanation]
    hint: NotRequired[Annotated[str, Meta(description="Route for such pictures.")]]
    ink: NotRequired[Annotated[str, Meta(description="28 x 28, what the model saw: a data URL.")]]
    number: NotRequired[Annotated[Number, Meta(description="The number, if several digits.")]]


Label: TypeAlias = Annotated[
    str, Meta(pattern="^([0-9]{1,64}|none)$", description="A digit, digits of a number, or none.")
]


class FeedbackRequest(TypedDict):
    """The label of a picture."""

    label: Annotated[Digit | Label | None, Meta(description="Null removes the label.")]


class Feedback(TypedDict):
    """The valid label of a prediction."""

    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    label: Label | None
    was_right: Annotated[bool | None, Meta(description="Null without a label.")]


class DigitShare(TypedDict):
    """An alternative for a digit."""

    digit: Digit
    confidence: Share


class NumberDigit(TypedDict):
    """One digit of a number."""

    digit: Digit
    confidence: Annotated[Share, Meta(description="Probability from the digit's own ink.")]
    box: Region
    decision: Decision
    alternatives: list[DigitShare]
    ink: NotRequired[Annotated[str, Meta(description="28 x 28, what the model saw: a data URL.")]]


class NumberShare(TypedDict):
    """An alternative for a number."""

    text: str
    confidence: Share


class NumberCheck(TypedDict):
    """Whether the number satisfies a hint."""

    name: Literal["length", "min", "max", "luhn", "mod97"]
    ok: bool


class Number(TypedDict):
    """The number in a picture or in a region."""

    text: Annotated[str, Meta(description="The digits; empty if no number was read.")]
    confidence: Annotated[Share, Meta(description="Probability of the whole number.")]
    decision: Decision
    reason: NumberReason | None
    digits: list[NumberDigit]
    alternatives: list[NumberShare]
    checks: list[NumberCheck]
    model_version: str
    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    kept: Annotated[Kept, Meta(description="Where the prediction is kept.")]
    total_time_ms: Milliseconds


class Numbers(TypedDict):
    """The number in each region, in the same order."""

    fields: list[Number]


class ErrorDetails(TypedDict):
    """The code and the message of an error."""

    code: str
    message: str


class ErrorBody(TypedDict):
    """An error."""

    error: ErrorDetails


_EITHER: Final = [{"$ref": REFERENCE.format(name=name)} for name in ("Prediction", "ErrorBody")]


class Predictions(TypedDict):
    """What was read in each picture of a batch, in its order."""

    # msgspec has no union of two dictionaries.
    predictions: Annotated[list[Any], Meta(extra_json_schema={"items": {"anyOf": _EITHER}})]


class Health(TypedDict):
    """Whether pictures can be read, and by which model."""

    status: Literal["healthy", "unhealthy"]
    model_loaded: bool
    model_version: str
    version: str
    error: NotRequired[ErrorDetails]


class Status(TypedDict):
    """Whether the process answers, or whether to send it requests."""

    status: Literal["alive", "ready"]
    log: NotRequired[Literal["database", "outbox", "off"]]
    rates: NotRequired[Literal["redis", "process"]]


class Tensor(TypedDict):
    """One tensor of the Open Inference Protocol."""

    name: str
    datatype: Literal["FP32", "INT32", "BYTES"]
    shape: Annotated[list[Annotated[int, Meta(ge=1)]], Meta(min_length=1, max_length=4)]
    parameters: NotRequired[dict[str, Any]]
    data: NotRequired[list[Any]]


class WantedOutput(TypedDict):
    """An output by its name, with its parameters."""

    name: str
    parameters: NotRequired[dict[str, Any]]


class InferenceRequest(TypedDict):
    """A request of the Open Inference Protocol."""

    id: NotRequired[str]
    parameters: NotRequired[dict[str, Any]]
    inputs: Annotated[list[Tensor], Meta(min_length=1, max_length=1)]
    outputs: NotRequired[list[WantedOutput]]


class InferenceAnswer(TypedDict):
    """An answer of the Open Inference Protocol."""

    id: NotRequired[str]
    model_name: str
    model_version: str
    outputs: list[Tensor]


class InferenceErrorBody(TypedDict):
    """An error of the Open Inference Protocol."""

    error: str
