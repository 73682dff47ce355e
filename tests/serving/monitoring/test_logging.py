from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from inkdigits.serving.monitoring.logging import (
    JsonFormatter,
    TextFormatter,
    configure_logging,
    fields,
)


@pytest.fixture(autouse=True)
def _root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def record(message: str = "request", error: Exception | None = None, **values: object) -> str:
    """A record's line in JSON, with what the logging call would attach to it."""
    made = logging.LogRecord("inkdigits.serving.app", logging.INFO, "", 0, message, None, None)
    made.created = 1_767_601_812.4657
    if error is not None:
        made.exc_info = (type(error), error, None)
    made.__dict__.update(fields(**values))
    return JsonFormatter().format(made) + "\n\n" + TextFormatter().format(made)


def test_json_line_has_time_level_message_and_fields() -> None:
    line = json.loads(record(status=200, path="/predict", error_code=None).split("\n\n")[0])
    assert line == {
        "time": "2026-01-05T08:30:12.465Z",
        "level": "info",
        "logger": "inkdigits.serving.app",
        "message": "request",
        "status": 200,
        "path": "/predict",
    }


def test_text_line_has_the_same_for_people() -> None:
    line = record(status=200, path="/predict").split("\n\n")[1]
    assert line == "2026-01-05T08:30:12.465Z info request status=200 path=/predict"


def test_line_break_in_a_field_forges_no_line() -> None:
    as_json, as_text = record(path="/\nforged").split("\n\n")
    assert len(as_json.splitlines()) == len(as_text.splitlines()) == 1
    assert as_text.endswith(r'path="/\nforged"')


def test_traceback_is_in_the_line_of_its_error() -> None:
    as_json, as_text = record(error=ValueError("what happened")).split("\n\n")
    assert "ValueError: what happened" in json.loads(as_json)["exception"]
    assert "ValueError: what happened" in as_text


def test_format_goes_by_whether_people_read_it() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, starts in ((Terminal(), "2"), (io.StringIO(), "{")):
        configure_logging(stream=stream)
        logging.getLogger("inkdigits").info("started")
        assert stream.getvalue().startswith(starts)
        assert len(stream.getvalue().splitlines()) == 1


def test_level_and_format_are_as_asked() -> None:
    stream = io.StringIO()
    configure_logging("text", "warning", stream)
    logging.getLogger("inkdigits").info("not wanted")
    logging.getLogger("inkdigits").warning("wanted")
    assert stream.getvalue().splitlines()[0].endswith("warning wanted")


def test_warnings_go_to_the_log_and_what_pillow_says_of_pictures_does_not() -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure_logging("json", "debug", stream)
        warnings.warn("something is odd", UserWarning, stacklevel=1)
        warnings.warn_explicit("Corrupt EXIF", UserWarning, "a.py", 1, module="PIL.Image")
        logging.getLogger("PIL.PngImagePlugin").debug("STREAM b'IHDR'")
        logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel")
        logging.captureWarnings(False)
    (line,) = stream.getvalue().splitlines()
    assert "something is odd" in json.loads(line)["message"]


def test_default_stream_is_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    assert logging.getLogger().handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
