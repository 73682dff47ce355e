"""Log lines for machines (JSON) and for people (``name=value``)."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

import orjson

from inkdigits.settings import LogFormat, LogLevel

_PLAIN = re.compile(r"[A-Za-z0-9._/:@+,-]+")


def fields(**values: object) -> dict[str, dict[str, object]]:
    """Wrap a line's fields for ``extra=`` of a logging call, without those that are None.

    >>> fields(status=200, error=None)
    {'fields': {'status': 200}}
    """
    return {"fields": {name: value for name, value in values.items() if value is not None}}


def _time(record: logging.LogRecord) -> str:
    seconds, milliseconds = divmod(int(record.created * 1000), 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the fields, a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:
            # A file name that is not UTF-8, or a number beyond 64 bits.
            texts = {name: ascii(value) for name, value in line.items()}
            return orjson.dumps(texts).decode()


class TextFormatter(logging.Formatter):
    """``time level message name=value …``; a value that is not plain is quoted as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, with the traceback on further ones."""
        parts = [_time(record), record.levelname.lower(), record.getMessage()]
        for name, value in getattr(record, "fields", {}).items():
            text = str(value)
            # Quoted in ASCII, a request's path can neither forge a line nor steer a terminal.
            parts.append(f"{name}={text if _PLAIN.fullmatch(text) else json.dumps(text)}")
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def resolve_format(log_format: LogFormat | None, stream: TextIO) -> LogFormat:
    """Choose text for a terminal and JSON for anything else, unless a format is given.

    >>> import io
    >>> resolve_format(None, io.StringIO())
    'json'
    """
    return log_format or ("text" if stream.isatty() else "json")


def adopt(name: str) -> None:
    """Have the logger of a server log as all others do.

    >>> adopt("example.server")
    """
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True
    # A client that falls silent is no error of the service.
    logger.addFilter(lambda line: not (line.exc_info and line.exc_info[0] is BlockingIOError))


def configure_logging(
    log_format: LogFormat | None = None, level: LogLevel = "info", stream: TextIO | None = None
) -> None:
    """Send the process's log to a stream, or standard error, in place of what was configured.

    >>> before, level = logging.root.handlers[:], logging.root.level
    >>> configure_logging("json", "warning")
    >>> logging.root.handlers[:] = before
    >>> logging.root.setLevel(level)
    >>> logging.captureWarnings(False)
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    as_text = resolve_format(log_format, stream) == "text"
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # No line has them, and each would be looked up for every line: thread, process, and the
    # caller, whose search takes longer than all the rest (docs.python.org/3/howto/logging.html).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    # Pillow logs every block of a file at DEBUG, which would put the picture into the log. It logs
    # damaged files as errors, but whoever sent one is told anyway.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # At INFO it describes itself; the log says what a migration has done.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.captureWarnings(True)
