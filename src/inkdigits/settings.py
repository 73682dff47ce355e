"""Settings of the service, typed and checked; the only module that reads the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from inkdigits.errors import ConfigError
from inkdigits.types import Device

LogFormat: TypeAlias = Literal["text", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
Switch: TypeAlias = Literal["on", "off"]

MIB = 1024 * 1024
# Pillow itself warns above this and refuses above twice as much, so more cannot be asked for.
PILLOW_MAX_PIXELS = 89_478_485


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set; ``docs/serve.md`` says of each variable what it means."""

    model_path: Path | None = None
    # PyTorch's; None is ONNX Runtime on the CPU.
    device: Device | None = None
    host: str = "127.0.0.1"
    port: int = 5000
    workers: int | None = None
    threads: int = 4
    # Pictures that a worker reads at once; other requests wait for a slot.
    slots: int = 2
    # Open connections per worker; more wait in the kernel, up to the backlog.
    connections: int = 1000
    backlog: int = 2048
    max_bytes: int = 10 * MIB
    # Width times height; larger pictures are not decoded.
    max_pixels: int = 25_000_000
    max_batch: int = 64
    # None is the model's own.
    risk: float | None = None
    # Seconds from a request's arrival within which its reading must begin.
    deadline: int = 30
    watch: Switch = "off"
    # None is text on a terminal and JSON elsewhere.
    log_format: LogFormat | None = None
    log_level: LogLevel = "info"
    # Seconds that requests in flight get to finish when the service stops.
    graceful_timeout: int = 30
    page: Switch = "on"
    # None reads here.
    model_url: str | None = None
    # None is SQLite in the data directory.
    database_url: str | None = field(default=None, repr=False)
    data_dir: Path | None = None
    outbox_dir: Path | None = None
    # Milliseconds that a request waits for the database, before its prediction is in the outbox.
    log_wait_ms: int = 250
    # "normal" syncs SQLite's commits to the disk each half second, "full" each commit.
    sqlite_synchronous: Literal["normal", "full"] = "normal"
    pgbouncer: Switch = "off"
    retention_days: int | None = None
    keep_pictures: Switch = "off"
    # Opens everybody's history; None opens only each browser's own.
    admin_token: str | None = field(default=None, repr=False)
    # Name and SHA-256 of the token of each who may review besides the operator.
    reviewers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    reviewers_file: Path | None = None
    # Of what is accepted, the share that is reviewed; and of what is reviewed, by two.
    audit_share: float = 0.01
    double_review: float = 0.1
    # A second model, a version or a path, that reads a share of the pictures too.
    shadow: str | None = None
    shadow_share: float = 0.1
    # None makes one and keeps it in the data directory.
    secret_key: str | None = field(default=None, repr=False)
    # Whether browsers reach the page over HTTPS, and cookies are for that only.
    https: Switch = "off"
    cors_origins: tuple[str, ...] = ()
    # Name and SHA-256 of each; with any, requests need one.
    api_keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_keys_file: Path | None = None
    model_key: str | None = field(default=None, repr=False)
    # Requests a minute of one key, or without one of one address, in each worker.
    rate_limit: int | None = None
    # Names, besides localhost, of a service that listens on this machine only.
    hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    otlp_endpoint: str | None = None

    @property
    def data_folder(self) -> Path:
        """``data_dir``, or ``inkdigits`` in the XDG Base Directory Specification's data home."""
        if self.data_dir is not None:
            return self.data_dir
        home = os.environ.get("XDG_DATA_HOME", "")
        # The specification has a relative path ignored.
        base = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share"
        return base / "inkdigits"

    @property
    def log_url(self) -> str:
        """URL of the prediction log's database."""
        return self.database_url or f"sqlite:///{self.data_folder / 'inkdigits.sqlite3'}"

    @property
    def log_name(self) -> str:
        """Where the prediction log is: the file of SQLite, or the URL without its password."""
        return re.sub(r"//[^@/]*@", "//", self.log_url.removeprefix("sqlite:///"))

    @property
    def outbox_folder(self) -> Path:
        """Where predictions wait for the database."""
        return self.outbox_dir or self.data_folder / "outbox"

    @property
    def keeps_log(self) -> bool:
        """Whether predictions are kept."""
        return self.page == "on" or self.database_url is not None

    @property
    def has_keys(self) -> bool:
        """Whether requests need an API key."""
        return bool(self.api_keys) or self.api_keys_file is not None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def worker_count(self) -> int:
        """Worker processes to start: ``workers``, or one per available core or accelerator."""
        if self.workers is not None:
            return self.workers
        return available_cores() if self.device in (None, "cpu") else 1

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from environment variables; an empty one counts as not set.

        Raises:
            ConfigError: a variable has a value that it cannot have, or its name begins with
                ``INKDIGITS_`` and is not known, which is most likely a slip of the pen.
        """
        environ = os.environ if environ is None else environ
        unknown = sorted(
            name for name in environ if name.startswith("INKDIGITS_") and name not in VARIABLES
        )
        if unknown:
            close = get_close_matches(unknown[0], VARIABLES, 1, 0.75)
            known = f"did you mean {close[0]}?" if close else ", ".join(sorted(VARIABLES))
            raise ConfigError(f"{unknown[0]} is not a setting; {known}")
        values: dict[str, Any] = {}
        for name, (setting, parse) in VARIABLES.items():
            text = environ.get(name, "")
            if text:
                try:
                    values[setting] = parse(text)
                except ConfigError as error:
                    # The message goes to terminals and logs, where a secret has no place.
                    shown = name if name in SECRETS else f"{name}={text!r}"
                    raise ConfigError(f"{shown}: {error}") from None
        return cls(**values)


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        # int() alone would take " 5 ", "+5", "5_000" and digits of other scripts.
        if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
            raise ConfigError(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


def _share(text: str) -> float:
    # float() alone would take "1e-3 ", "nan" and "0_1".
    if not re.fullmatch(r"[0-9]{0,2}\.[0-9]{1,12}", text) or not 0 < float(text) < 1:
        raise ConfigError("must be a number above 0 and below 1, such as 0.01")
    return float(text)


def _fraction(text: str) -> float:
    return float(text) if text in ("0", "1") else _share(text)


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


def _model_url(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.:_\[\]-]+/?", text):
        raise ConfigError("must be http://host:port, without a path")
    return text.rstrip("/")


def _endpoint(text: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9.:_\[\]-]+(/[A-Za-z0-9._~/-]*)?", text):
        raise ConfigError("must be http://host:port, perhaps with a path")
    return text.rstrip("/")


def _hosts(text: str) -> tuple[str, ...]:
    return tuple(_host(part.strip()).lower() for part in text.split(","))


def _secret(least: int) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if len(text) < least:
            raise ConfigError(f"must have at least {least} characters")
        return text

    return parse


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(","))
    for origin in origins:
        # "*" would let any page on the network read what is drawn, so there is no such thing.
        if not re.fullmatch(r"https?://[A-Za-z0-9.:_\[\]-]+", origin):
            raise ConfigError("must be origins such as https://example.org, between commas")
    return origins


def parse_api_keys(text: str) -> tuple[tuple[str, str], ...]:
    """Return the names and SHA-256 digests in ``name:sha256``, several between commas.

    >>> parse_api_keys("ada:" + "0" * 64)[0][0]
    'ada'

    Raises:
        ConfigError: one is of another form; the message has its number only.
    """
    keys: list[tuple[str, str]] = []
    for part in text.split(","):
        name, _, digest = part.strip().partition(":")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or not re.fullmatch(
            r"[0-9a-f]{64}", digest
        ):
            raise ConfigError(
                f"key {len(keys) + 1} is not name:sha256, of up to 64 letters, digits, '.', '_' or "
                "'-' and 64 lower-case hexadecimal digits; 'inkdigits key NAME' makes one"
            )
        keys.append((name, digest))
    return tuple(keys)


def _networks(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(part.strip())) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"must be addresses or networks such as 10.0.0.0/8, between commas ({error})"
        ) from None


VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "MODEL_PATH": ("model_path", Path),
    "INKDIGITS_DEVICE": ("device", _one_of(*get_args(Device))),
    "PORT": ("port", _integer(1, 65535)),
    "INKDIGITS_HOST": ("host", _host),
    "INKDIGITS_WORKERS": ("workers", _integer(1, 512)),
    "INKDIGITS_THREADS": ("threads", _integer(1, 256)),
    "INKDIGITS_SLOTS": ("slots", _integer(1, 256)),
    "INKDIGITS_CONNECTIONS": ("connections", _integer(8, 100_000)),
    "INKDIGITS_BACKLOG": ("backlog", _integer(1, 65_535)),
    "INKDIGITS_MAX_BYTES": ("max_bytes", _integer(1024, 1024 * MIB)),
    "INKDIGITS_MAX_PIXELS": ("max_pixels", _integer(784, PILLOW_MAX_PIXELS)),
    "INKDIGITS_MAX_BATCH": ("max_batch", _integer(1, 4096)),
    "INKDIGITS_RISK": ("risk", _share),
    "INKDIGITS_DEADLINE": ("deadline", _integer(1, 3600)),
    "INKDIGITS_WATCH": ("watch", _one_of(*get_args(Switch))),
    "INKDIGITS_LOG_FORMAT": ("log_format", _one_of(*get_args(LogFormat))),
    "INKDIGITS_LOG_LEVEL": ("log_level", _one_of(*get_args(LogLevel))),
    "INKDIGITS_GRACEFUL_TIMEOUT": ("graceful_timeout", _integer(0, 3600)),
    "INKDIGITS_PAGE": ("page", _one_of(*get_args(Switch))),
    "MODEL_URL": ("model_url", _model_url),
    "DATABASE_URL": ("database_url", str),
    "INKDIGITS_DATA_DIR": ("data_dir", Path),
    "INKDIGITS_SPOOL_DIR": ("outbox_dir", Path),
    "INKDIGITS_LOG_WAIT_MS": ("log_wait_ms", _integer(1, 60_000)),
    "INKDIGITS_SQLITE_SYNCHRONOUS": ("sqlite_synchronous", _one_of("normal", "full")),
    "INKDIGITS_PGBOUNCER": ("pgbouncer", _one_of(*get_args(Switch))),
    "INKDIGITS_RETENTION_DAYS": ("retention_days", _integer(1, 36_500)),
    "INKDIGITS_KEEP_PICTURES": ("keep_pictures", _one_of(*get_args(Switch))),
    "INKDIGITS_ADMIN_TOKEN": ("admin_token", _secret(16)),
    "INKDIGITS_REVIEWERS": ("reviewers", parse_api_keys),
    "INKDIGITS_REVIEWERS_FILE": ("reviewers_file", Path),
    "INKDIGITS_AUDIT": ("audit_share", _fraction),
    "INKDIGITS_DOUBLE_REVIEW": ("double_review", _fraction),
    "INKDIGITS_SHADOW": ("shadow", str),
    "INKDIGITS_SHADOW_SHARE": ("shadow_share", _fraction),
    "INKDIGITS_SECRET_KEY": ("secret_key", _secret(32)),
    "INKDIGITS_HTTPS": ("https", _one_of(*get_args(Switch))),
    "INKDIGITS_CORS_ORIGINS": ("cors_origins", _origins),
    "INKDIGITS_API_KEYS": ("api_keys", parse_api_keys),
    "INKDIGITS_API_KEYS_FILE": ("api_keys_file", Path),
    "INKDIGITS_MODEL_KEY": ("model_key", _secret(16)),
    "INKDIGITS_RATE_LIMIT": ("rate_limit", _integer(1, 1_000_000)),
    "INKDIGITS_HOSTS": ("hosts", _hosts),
    "INKDIGITS_TRUSTED_PROXIES": ("trusted_proxies", _networks),
    "INKDIGITS_TLS_CERT": ("tls_cert", Path),
    "INKDIGITS_TLS_KEY": ("tls_key", Path),
    # The standard's own name; what else it has, such as OTEL_SERVICE_NAME, its library reads.
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("otlp_endpoint", _endpoint),
}
"""Environment variable → (field of Settings, its parser); docs/serve.md lists each."""

SECRETS = frozenset(
    {
        "DATABASE_URL",
        "INKDIGITS_ADMIN_TOKEN",
        "INKDIGITS_API_KEYS",
        "INKDIGITS_MODEL_KEY",
        "INKDIGITS_REVIEWERS",
        "INKDIGITS_SECRET_KEY",
    }
)
"""The variables whose values are never shown."""


def available_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use, by its affinity and its groups' CPU quotas.

    ``os.cpu_count()`` counts the host's cores: a container limited to two of 64 would start 64
    workers. The quota of every parent group holds too; it is rounded down, to at least 1.

    >>> available_cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(int, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the quotas of this process's groups and of their parents, in cores."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        # "0::/path" for version 2, "4:cpu,cpuacct:/path" for a controller of version 1.
        _, controllers, path = line.split(":", 2)
        mounts = [""] if not controllers else [controllers, "cpu"]
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = Path(path.lstrip("/"))
        for mount in mounts:
            # A container may see itself as the root of the tree, under a path that is the host's.
            for folder in (group, *group.parents, Path()):
                yield from _quota(root / "sys/fs/cgroup" / mount / folder)


def _quota(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        # Version 2 says "max" and version 1 says -1 where there is no limit.
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)
    except (OSError, ValueError):
        return
