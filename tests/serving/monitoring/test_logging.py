import io
import json
import logging
import sys
import warnings

import pytest

from inkdigits.serving.monitoring.logging import (
    JsonFormatter,
    TextFormatter,
    configure_logging,
    fields,
)


@pytest.fixture(autouse=True)
def _root_logger_as_it_was():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines_of(error=None, **values):
    """Return a record's line in JSON and the one for people."""
    made = logging.LogRecord("inkdigits.serving.app", logging.INFO, "", 0, "request", None, None)
    made.created = 1_767_601_812.4657
    if error is not None:
        made.exc_info = (type(error), error, None)
    made.__dict__.update(fields(**values))
    return JsonFormatter().format(made), TextFormatter().format(made)


def test_line_has_time_level_message_and_fields():
    as_json, as_text = lines_of(status=200, path="/predict", error_code=None)
    assert as_text == "2026-01-05T08:30:12.465Z info request status=200 path=/predict"
    assert json.loads(as_json) == {
        "time": "2026-01-05T08:30:12.465Z",
        "level": "info",
        "logger": "inkdigits.serving.app",
        "message": "request",
        "status": 200,
        "path": "/predict",
    }


def test_line_break_in_a_field_forges_no_line_and_a_traceback_is_in_it():
    as_json, as_text = lines_of(path="/\nforged")
    assert len(as_json.splitlines()) == len(as_text.splitlines()) == 1
    assert as_text.endswith(r'path="/\nforged"')
    as_json, as_text = lines_of(error=ValueError("what happened"))
    assert "ValueError: what happened" in json.loads(as_json)["exception"]
    assert "ValueError: what happened" in as_text


def test_stream_level_and_format_are_as_asked_or_go_by_whether_people_read_it():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, starts in ((Terminal(), "2"), (io.StringIO(), "{")):
        configure_logging(stream=stream)
        logging.getLogger("inkdigits").info("started")
        (line,) = stream.getvalue().splitlines()
        assert line.startswith(starts)
    stream = io.StringIO()
    configure_logging("text", "warning", stream)
    logging.getLogger("inkdigits").info("not wanted")
    logging.getLogger("inkdigits").warning("wanted")
    assert stream.getvalue().splitlines()[0].endswith("warning wanted")
    configure_logging("text")
    assert logging.getLogger().handlers[0].stream is sys.stderr


def test_warnings_go_to_the_log_and_what_pillow_says_of_pictures_does_not():
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
