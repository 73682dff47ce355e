"""Log lines for machines (JSON) and for people (logfmt-like text). Configures only when asked."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from datetime import UTC, datetime
from typing import Any, TextIO

from inkdigits.settings import LogFormat, LogLevel

_PLAIN = re.compile(r"[A-Za-z0-9._/:@+,-]+")
# json.dumps would make one for each line.
_ENCODER = json.JSONEncoder(default=str)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Wrap a line's fields for ``extra=`` of a logging call; those that are None are left out."""
    return {"fields": {name: value for name, value in values.items() if value is not None}}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line)


class TextFormatter(logging.Formatter):
    """``time level message name=value …``; a value that isn't plain is quoted as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, with the traceback on further ones."""
        parts = [_time(record), record.levelname.lower(), record.getMessage()]
        for name, value in getattr(record, "fields", {}).items():
            text = str(value)
            # Quoted, a line break from a request's path can't forge a line of its own.
            parts.append(f"{name}={text if _PLAIN.fullmatch(text) else json.dumps(text)}")
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def resolve_format(log_format: LogFormat | None, stream: TextIO) -> LogFormat:
    """Choose text for a terminal and JSON for anything else, unless a format is given."""
    if log_format is not None:
        return log_format
    return "text" if stream.isatty() else "json"


def configure_logging(
    log_format: LogFormat | None = None, level: LogLevel = "info", stream: TextIO | None = None
) -> None:
    """Send the process's log to one stream in one format, in place of what was configured.

    Args:
        log_format: None is text on a terminal and JSON elsewhere.
        level: least severe level that is logged.
        stream: where to; None is standard error.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    as_text = resolve_format(log_format, stream) == "text"
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Nothing of it is in a line, and each would be looked up for every one.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Pillow describes every chunk of every file at DEBUG, which would be a picture in the log, and
    # complains of damaged files as of errors here, where whoever sent one is told anyway.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # Alembic introduces itself at INFO whenever the log's schema is looked at.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.captureWarnings(True)
