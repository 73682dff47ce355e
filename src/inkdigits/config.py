"""Settings of the service, typed and checked; the only module that reads the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from inkdigits.errors import ConfigError

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

MIB = 1024 * 1024
# Pillow itself warns above this and refuses above twice as much, so more can't be asked for.
PILLOW_MAX_PIXELS = 89_478_485
_CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def available_cores(cpu_max: Path = _CGROUP_CPU_MAX) -> int:
    """Cores that this process may use: its affinity, and the quota of its container.

    ``os.cpu_count()`` counts the host's cores, and a container limited to two of 64 would start
    64 workers.

    Args:
        cpu_max: the cgroup v2 file that holds "quota period" in microseconds, or "max period".

    Returns:
        At least 1.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    if cpu_max.is_file():
        quota, period = cpu_max.read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set; ``docs/operations.md`` has the variables.

    Attributes:
        model_path: the artifact to serve; None is the one that ships with the package.
        host: address to listen on.
        port: TCP port to listen on, 1 to 65535.
        workers: worker processes; None is one for each available core.
        threads: threads a worker, each serving one request at a time.
        max_bytes: largest request body, in bytes.
        max_pixels: largest picture, in pixels (width times height); larger ones are not decoded.
        max_batch: most pictures in one request.
        log_format: None is text on a terminal and JSON elsewhere.
        log_level: least severe level that is logged.
        graceful_timeout: seconds that requests in flight get to finish when the service stops.
    """

    model_path: Path | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    workers: int | None = None
    threads: int = 4
    max_bytes: int = 10 * MIB
    max_pixels: int = 25_000_000
    max_batch: int = 64
    log_format: LogFormat | None = None
    log_level: LogLevel = "info"
    graceful_timeout: int = 30

    @property
    def worker_count(self) -> int:
        """Worker processes to start: ``workers``, or one for each available core."""
        return available_cores() if self.workers is None else self.workers

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables; an empty one counts as not set.

        Args:
            environ: the variables; None is the process's environment.

        Returns:
            The settings, with defaults for what isn't set.

        Raises:
            ConfigError: a variable has a value that it can't have, or its name begins with
                ``INKDIGITS_`` and isn't known, which is most likely a slip of the pen.
        """
        environ = os.environ if environ is None else environ
        unknown = sorted(
            name for name in environ if name.startswith("INKDIGITS_") and name not in VARIABLES
        )
        if unknown:
            known = ", ".join(sorted(VARIABLES))
            raise ConfigError(f"{unknown[0]} is not a setting; the settings are {known}")
        values: dict[str, Any] = {}
        for name, (field, parse) in VARIABLES.items():
            text = environ.get(name, "")
            if text:
                try:
                    values[field] = parse(text)
                except ConfigError as error:
                    raise ConfigError(f"{name}={text!r}: {error}") from None
        return cls(**values)


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # int() alone would take " 5 ", "+5", "5_000" and digits of other scripts.
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise ConfigError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ConfigError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return parse


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_-]+", text):
        raise ConfigError("must be a host name or an IP address, without brackets or port")
    return text


VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "MODEL_PATH": ("model_path", Path),
    "PORT": ("port", _integer(1, 65535)),
    "INKDIGITS_HOST": ("host", _host),
    "INKDIGITS_WORKERS": ("workers", _integer(1, 512)),
    "INKDIGITS_THREADS": ("threads", _integer(1, 256)),
    "INKDIGITS_MAX_BYTES": ("max_bytes", _integer(1024, 1024 * MIB)),
    "INKDIGITS_MAX_PIXELS": ("max_pixels", _integer(784, PILLOW_MAX_PIXELS)),
    "INKDIGITS_MAX_BATCH": ("max_batch", _integer(1, 4096)),
    "INKDIGITS_LOG_FORMAT": ("log_format", _one_of(*get_args(LogFormat))),
    "INKDIGITS_LOG_LEVEL": ("log_level", _one_of(*get_args(LogLevel))),
    "INKDIGITS_GRACEFUL_TIMEOUT": ("graceful_timeout", _integer(0, 3600)),
}
"""Environment variable → (field of Settings, its parser); docs/operations.md lists each."""
