"""A record of the log: made of a prediction, checked, written as a row and as JSON."""

import time
import uuid
from datetime import UTC, datetime

import numpy as np
import pytest
from support.databases import a_record

from inkdigits.decision.prediction import Prediction
from inkdigits.errors import RecordError
from inkdigits.log.record import MAX_PICTURE_BYTES, Record, from_row, new_id, to_row

FEEDBACK = {"label": "4", "feedback_us": 1, "feedback_by": "page"}


def test_a_record_is_made_of_a_prediction():
    prediction = Prediction(
        digit=7,
        confidence=float(np.float32(1) + np.finfo(np.float32).eps),  # a softmax's rounding
        probabilities=(*[0.0] * 7, 1.0, 0.0, 0.0),
        decision="accept",
        reason=None,
        novelty=None,
        ink=np.full((28, 28), 7, np.uint8),
        model_version="m",
        preprocessing_ms=1.0,
        inference_ms=1.0,
    )
    before = datetime.now(UTC)
    record = Record.of(prediction, input_kind="uploaded", owner="browser-1", picture=b"png")
    assert before <= record.created_at <= datetime.now(UTC)
    assert (record.digit, record.confidence, record.input_kind) == (7, 1.0, "uploaded")
    assert (record.owner, record.picture, record.label) == ("browser-1", b"png", None)
    assert record.ink.tolist() == prediction.ink.tolist()
    given = new_id()
    assert Record.of(prediction, input_kind="api", record_id=given).id == given
    # What is too large to be kept has been read all the same.
    large = bytes(MAX_PICTURE_BYTES + 1)
    assert Record.of(prediction, input_kind="api", picture=large).picture is None


def test_a_record_does_not_change_with_the_array_it_was_made_of():
    ink = np.zeros((28, 28), np.uint8)
    record = a_record(ink=ink)
    ink[:] = 255
    assert record.ink.sum() == 0
    assert not record.ink.flags.writeable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "01A20A9D-1D0A-7736-AA91-F9D5B077C2F5"}, "id"),
        ({"created_us": None}, "unsupported"),
        ({"confidence": float("nan")}, "confidence"),
        ({"probabilities": [0.1] * 9}, "probabilities"),
        ({"digit": 10}, "digit"),
        ({"decision": "maybe"}, "decision"),
        ({"model_version": ""}, "model_version"),
        ({"owner": "=cmd()"}, "owner"),
        ({"owner": "ada\n"}, "owner"),
        ({"ink": bytes(783)}, "reshape"),
        ({"picture": bytes(MAX_PICTURE_BYTES + 1)}, "picture"),
        ({"label": "3"}, "or none of them"),
        ({"text": "3"}, "others neither"),
        ({**FEEDBACK, "label": "x"}, "label"),
    ],
)
def test_a_row_that_is_no_record_says_why(changes, message):
    with pytest.raises(RecordError, match=message):
        from_row({**to_row(a_record()), **changes})


def test_a_row_of_the_first_version_is_a_record_with_its_label():
    later = ("text", "digits", "label", "queued", "reviews_due", "shadow")
    row = {name: value for name, value in to_row(a_record()).items() if name not in later}
    assert from_row({**row, "true_digit": None}).label is None
    for former, label in ((4, "4"), (-1, "none")):
        assert from_row({**row, **FEEDBACK, "label": None, "true_digit": former}).label == label


@pytest.mark.parametrize(
    ("digit", "decision", "label", "was_right"),
    [
        (3, "accept", None, None),
        (3, "accept", "3", True),
        (3, "accept", "5", False),
        (3, "accept", "33", False),
        (3, "accept", "none", False),
        (3, "reject", "none", True),
        (None, "reject", "none", True),
        (None, "reject", "5", False),
    ],
)
def test_right_means_the_label_or_a_rejected_scribble(digit, decision, label, was_right):
    feedback = {} if label is None else {**FEEDBACK, "label": label}
    row = to_row(a_record(digit=digit, decision=decision)) | feedback
    assert from_row(row).was_right is was_right


def test_id_is_a_uuid_of_version_7_as_the_rfc_lays_it_out(monkeypatch):
    # Half a millisecond after the moment of RFC 9562's example, appendix A.6.
    monkeypatch.setattr(time, "time_ns", lambda: 0x017F22E279B0 * 1_000_000 + 500_000)
    assert new_id().startswith("017f22e2-79b0-7800-")
    made = uuid.UUID(new_id())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_ids_of_different_moments_sort_by_time_and_none_repeats(monkeypatch):
    moment = time.time_ns()
    ids = []
    for microseconds in range(2000):
        monkeypatch.setattr(time, "time_ns", lambda now=moment + microseconds * 1000: now)
        ids.append(new_id())
    assert ids == sorted(ids)
    monkeypatch.setattr(time, "time_ns", lambda: moment)
    assert len({new_id() for _ in range(1000)}) == 1000
