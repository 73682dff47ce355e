"""Settings of the service, typed and checked; the only module that reads the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
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


def _one_of(choices: Any) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in get_args(choices):
            raise ConfigError(f"must be one of {', '.join(get_args(choices))}")
        return text.lower()

    return parse


def _text(pattern: str, allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ConfigError(f"must {allowed}")
        return text

    return parse


def _server(path: str, allowed: str) -> Callable[[str], str]:
    parse = _text(_SERVER + path, f"be http://host:port, {allowed}")
    return lambda text: parse(text).rstrip("/")


def _secret(least: int) -> Callable[[str], str]:
    return _text(f"(?s:.{{{least},}})", f"have at least {least} characters")


def _each(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    return lambda text: tuple(parse(part.strip()) for part in text.split(","))


_SERVER = r"https?://[A-Za-z0-9.:_\[\]-]+"
_host = _text(r"[A-Za-z0-9.:_-]+", "be a host name or an IP address, without brackets or port")
# "*" would let any page on the network read what is drawn, so there is no such thing.
_origin = _text(_SERVER, "be origins such as https://example.org, between commas")
_redis_url = _text(r"rediss?://[^/].*", "be redis://host:port/number, or rediss:// for TLS")


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ConfigError(
            f"must be addresses or networks such as 10.0.0.0/8, between commas ({error})"
        ) from None


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


def _setting(
    parse: Callable[[str], Any], default: Any = None, variable: str = "", *, secret: bool = False
) -> Any:
    """Return a field that a variable sets; INKDIGITS_ and its name, unless another is given."""
    return field(default=default, repr=not secret, metadata={"parse": parse, "variable": variable})


# ruff: noqa: RUF009  (`_setting` returns a field)
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set; ``docs/serve.md`` says of each variable what it means."""

    model_path: Path | None = _setting(Path, variable="MODEL_PATH")
    # PyTorch's; None is ONNX Runtime on the CPU.
    device: Device | None = _setting(_one_of(Device))
    host: str = _setting(_host, "127.0.0.1")
    port: int = _setting(_integer(1, 65535), 5000, "PORT")
    workers: int | None = _setting(_integer(1, 512))
    threads: int = _setting(_integer(1, 256), 4)
    # Pictures that a worker reads at once; other requests wait for a slot.
    slots: int = _setting(_integer(1, 256), 2)
    # Open connections per worker; more wait in the kernel, up to the backlog.
    connections: int = _setting(_integer(8, 100_000), 1000)
    backlog: int = _setting(_integer(1, 65_535), 2048)
    max_bytes: int = _setting(_integer(1024, 1024 * MIB), 10 * MIB)
    # Width times height; larger pictures are not decoded.
    max_pixels: int = _setting(_integer(784, PILLOW_MAX_PIXELS), 25_000_000)
    max_batch: int = _setting(_integer(1, 4096), 64)
    # None is the model's own.
    risk: float | None = _setting(_share)
    # Seconds from a request's arrival within which its reading must begin.
    deadline: int = _setting(_integer(1, 3600), 30)
    watch: Switch = _setting(_one_of(Switch), "off")
    # None is text on a terminal and JSON elsewhere.
    log_format: LogFormat | None = _setting(_one_of(LogFormat))
    log_level: LogLevel = _setting(_one_of(LogLevel), "info")
    # Seconds that requests in flight get to finish when the service stops.
    graceful_timeout: int = _setting(_integer(0, 3600), 30)
    page: Switch = _setting(_one_of(Switch), "on")
    # None reads here.
    model_url: str | None = _setting(_server("/?", "without a path"), variable="MODEL_URL")
    # None is SQLite in the data directory.
    database_url: str | None = _setting(str, variable="DATABASE_URL", secret=True)
    data_dir: Path | None = _setting(Path)
    outbox_dir: Path | None = _setting(Path, variable="INKDIGITS_SPOOL_DIR")
    # Milliseconds that a request waits for the database, before its prediction is in the outbox.
    log_wait_ms: int = _setting(_integer(1, 60_000), 250)
    # "normal" syncs SQLite's commits to the disk each half second, "full" each commit.
    sqlite_synchronous: Literal["normal", "full"] = _setting(
        _one_of(Literal["normal", "full"]), "normal"
    )
    pgbouncer: Switch = _setting(_one_of(Switch), "off")
    retention_days: int | None = _setting(_integer(1, 36_500))
    keep_pictures: Switch = _setting(_one_of(Switch), "off")
    # Opens everybody's history; None opens only each browser's own.
    admin_token: str | None = _setting(_secret(16), secret=True)
    # Name and SHA-256 of the token of each who may review besides the operator.
    reviewers: tuple[tuple[str, str], ...] = _setting(parse_api_keys, (), secret=True)
    reviewers_file: Path | None = _setting(Path)
    # Of what is accepted, the share that is reviewed; and of what is reviewed, by two.
    audit_share: float = _setting(_fraction, 0.01, "INKDIGITS_AUDIT")
    double_review: float = _setting(_fraction, 0.1)
    # A second model, a version or a path, that reads a share of the pictures too.
    shadow: str | None = _setting(str)
    shadow_share: float = _setting(_fraction, 0.1)
    # None makes one and keeps it in the data directory.
    secret_key: str | None = _setting(_secret(32), secret=True)
    # Whether browsers reach the page over HTTPS, and cookies are for that only.
    https: Switch = _setting(_one_of(Switch), "off")
    cors_origins: tuple[str, ...] = _setting(_each(_origin), ())
    # Name and SHA-256 of each; with any, requests need one.
    api_keys: tuple[tuple[str, str], ...] = _setting(parse_api_keys, (), secret=True)
    api_keys_file: Path | None = _setting(Path)
    model_key: str | None = _setting(_secret(16), secret=True)
    # Requests per minute of one key, or without one of one address.
    rate_limit: int | None = _setting(_integer(1, 1_000_000))
    # The Redis that counts them for all replicas; None counts in each worker.
    rate_limit_url: str | None = _setting(_redis_url, secret=True)
    # Names, besides localhost, of a service that listens on this machine only.
    hosts: tuple[str, ...] = _setting(_each(lambda text: _host(text).lower()), ())
    trusted_proxies: tuple[str, ...] = _setting(_each(_network), ())
    tls_cert: Path | None = _setting(Path)
    tls_key: Path | None = _setting(Path)
    # The standard's own name; what else it has, such as OTEL_SERVICE_NAME, its library reads.
    otlp_endpoint: str | None = _setting(
        _server(r"(/[A-Za-z0-9._~/-]*)?", "perhaps with a path"),
        variable="OTEL_EXPORTER_OTLP_ENDPOINT",
    )

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

        A ConfigError names a variable with an invalid value, or one of ours that is not known.
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
        for name, setting in VARIABLES.items():
            if text := environ.get(name, ""):
                try:
                    values[setting.name] = setting.metadata["parse"](text)
                except ConfigError as error:
                    # The message goes to terminals and logs, where a secret has no place.
                    shown = f"{name}={text!r}" if setting.repr else name
                    raise ConfigError(f"{shown}: {error}") from None
        return cls(**values)


VARIABLES = {
    one.metadata["variable"] or f"INKDIGITS_{one.name.upper()}": one for one in fields(Settings)
}
"""Environment variable → field of Settings; docs/serve.md lists each."""


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
