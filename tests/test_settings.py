import os
import re
from pathlib import Path

import pytest
from support.repository import REPOSITORY

from inkdigits.errors import ConfigError
from inkdigits.settings import MIB, VARIABLES, Settings, available_cores

OPERATIONS = REPOSITORY / "docs" / "serve.md"


def test_empty_environment_gives_the_defaults():
    assert Settings.from_env({}) == Settings()
    assert Settings.from_env({"PORT": "", "HOME": "/root"}) == Settings()


A, B = "a" * 64, "b" * 64
SOME = [
    ("MODEL_PATH", "models/a.onnx", "model_path", Path("models/a.onnx")),
    ("INKDIGITS_DEVICE", "cuda", "device", "cuda"),
    ("PORT", "8080", "port", 8080),
    ("INKDIGITS_HOST", "::1", "host", "::1"),
    ("INKDIGITS_RISK", "0.005", "risk", 0.005),
    ("INKDIGITS_WATCH", "ON", "watch", "on"),
    ("INKDIGITS_LOG_FORMAT", "JSON", "log_format", "json"),
    ("INKDIGITS_GRACEFUL_TIMEOUT", "0", "graceful_timeout", 0),
    ("MODEL_URL", "http://model:5000/", "model_url", "http://model:5000"),
    ("DATABASE_URL", "postgresql://db/inkdigits", "database_url", "postgresql://db/inkdigits"),
    ("INKDIGITS_SPOOL_DIR", "/spool", "outbox_dir", Path("/spool")),
    (
        "INKDIGITS_ADMIN_TOKEN",
        "a-token-of-the/operator/",
        "admin_token",
        "a-token-of-the/operator/",
    ),
    ("INKDIGITS_API_KEYS", f"a:{A}, b:{B}", "api_keys", (("a", A), ("b", B))),
    ("INKDIGITS_RATE_LIMIT_URL", "redis://r:1/0", "rate_limit_url", "redis://r:1/0"),
    ("INKDIGITS_HOSTS", "ink.example, Digits", "hosts", ("ink.example", "digits")),
    ("INKDIGITS_TRUSTED_PROXIES", "10.0.0.0/8, ::1", "trusted_proxies", ("10.0.0.0/8", "::1/128")),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318/", "otlp_endpoint", "http://otel:4318"),
    (
        "INKDIGITS_CORS_ORIGINS",
        "https://a, http://b:80",
        "cors_origins",
        ("https://a", "http://b:80"),
    ),
    ("INKDIGITS_AUDIT", "0", "audit_share", 0.0),
    ("INKDIGITS_DOUBLE_REVIEW", "0.25", "double_review", 0.25),
    ("INKDIGITS_SQLITE_SYNCHRONOUS", "full", "sqlite_synchronous", "full"),
]
"""Of each kind a variable, its text, the field that it sets, and to what."""


def test_a_variable_reaches_its_setting():
    settings = Settings.from_env({variable: text for variable, text, _, _ in SOME})
    assert settings == Settings(**{field: value for _, _, field, value in SOME})


BAD = [
    ("PORT", ["0", "65536", "http", " 80", "8_0", "٨٠"], "from 1 to 65535"),
    ("INKDIGITS_THREADS", ["2.5"], "from 1 to 256"),
    ("INKDIGITS_MAX_PIXELS", ["89478486"], "to 89478485"),
    ("INKDIGITS_RISK", ["0", "1", "0.0", "nan", "1%"], "above 0 and below 1"),
    ("INKDIGITS_LOG_FORMAT", ["xml"], "text, json"),
    ("INKDIGITS_HOST", ["http://0.0.0.0"], "IP address"),
    ("MODEL_URL", ["model:5000"], "http://host:port"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", ["collector:4318"], "http://host:port"),
    ("INKDIGITS_CORS_ORIGINS", ["*"], "origins such as"),
    ("INKDIGITS_TRUSTED_PROXIES", ["10.0.0.1/8", "*"], "networks such as"),
]


@pytest.mark.parametrize(("name", "values", "allowed"), BAD)
def test_bad_value_names_the_variable_the_value_and_what_is_allowed(name, values, allowed):
    for value in values:
        with pytest.raises(ConfigError) as caught:
            Settings.from_env({name: value})
        assert all(part in str(caught.value) for part in (name, repr(value), allowed)), value


def test_unknown_variable_of_ours_is_refused_and_the_known_are_listed():
    with pytest.raises(ConfigError, match=r"INKDIGITS_TREADS .*INKDIGITS_THREADS"):
        Settings.from_env({"INKDIGITS_TREADS": "4"})


def test_defaults_limit_pictures_and_give_each_core_a_worker():
    assert Settings().max_pixels < 50_000_000
    assert Settings().max_bytes == 10 * MIB
    assert Settings().worker_count == available_cores()
    assert Settings(workers=7).worker_count == 7


def test_operations_lists_exactly_the_variables_that_there_are():
    table = re.findall(r"^\| `([A-Z_]+)` \|", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(table) == sorted(VARIABLES)


@pytest.mark.parametrize("name", ["INKDIGITS_ADMIN_TOKEN", "INKDIGITS_SECRET_KEY"])
def test_secret_that_is_too_short_is_refused_without_being_shown(name):
    with pytest.raises(ConfigError, match=rf"^{name}: must have at least (?!.*hunter2)"):
        Settings.from_env({name: "hunter2"})


@pytest.mark.parametrize(
    "text", ["ada", "ada:", f"ada:{'A' * 64}", f":{'a' * 64}", f"a b:{'a' * 64}", "ada:hunter2"]
)
def test_api_key_of_another_form_is_refused_without_being_shown(text):
    message = r"^INKDIGITS_API_KEYS: key 2 is not name:sha256(?!.*hunter2)"
    with pytest.raises(ConfigError, match=message):
        Settings.from_env({"INKDIGITS_API_KEYS": f"bob:{'b' * 64}, {text}"})


def test_local_is_what_only_this_machine_reaches():
    hosts = ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "a.org")
    assert [host for host in hosts if Settings(host=host).is_local] == list(hosts[:4])


def test_secrets_are_not_in_the_settings_representation():
    shown = repr(Settings(admin_token="t" * 16, secret_key="k" * 32, database_url="sqlite:///x"))
    assert not any(secret in shown for secret in ("t" * 16, "k" * 32, "sqlite:///x"))


def test_log_is_in_the_users_data_directory(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ada/data")
    assert Settings().log_url == "sqlite:////home/ada/data/inkdigits/inkdigits.sqlite3"
    assert Settings().outbox_folder == Path("/home/ada/data/inkdigits/outbox")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ada")
    assert Settings().data_folder == Path("/home/ada/.local/share/inkdigits")


def test_log_is_kept_with_the_page_or_where_a_database_is_named():
    assert Settings().keeps_log
    assert not Settings(page="off").keeps_log
    assert Settings(page="off", database_url="sqlite:///log.sqlite3").keeps_log


def quota(folder, us):
    """Return the files of a group of version 1."""
    return {f"{folder}/cpu.cfs_quota_us": str(us), f"{folder}/cpu.cfs_period_us": "100000"}


GROUPS = {
    "no quota": ("0::/", {"cpu.max": "max 100000"}, 16),
    "a quota": ("0::/", {"cpu.max": "250000 100000"}, 2),
    "less than a core": ("0::/", {"cpu.max": "50000 100000"}, 1),
    "of a parent": (
        "0::/pod/box",
        {"pod/cpu.max": "300000 100000", "pod/box/cpu.max": "max 100000"},
        3,
    ),
    "of a container's root": ("0::/of/the/host", {"cpu.max": "400000 100000"}, 4),
    "version 1": ("5:memory:/box\n4:cpu,cpuacct:/box", quota("cpu,cpuacct/box", 200_000), 2),
    "version 1 in a container": ("4:cpu,cpuacct:/docker/of/the/host", quota("cpu", 600_000), 6),
    "version 1 without": ("4:cpu:/", quota("cpu", -1), 16),
    "unreadable": ("0::/", {"cpu.max": "nonsense"}, 16),
}


@pytest.mark.parametrize(("groups", "files", "expected"), GROUPS.values(), ids=GROUPS)
def test_quota_of_a_group_or_of_its_parent_limits_the_cores(
    tmp_path, monkeypatch, groups, files, expected
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert available_cores(tmp_path) == 16  # a system without groups
    in_place = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    for name, content in {"proc/self/cgroup": groups, **in_place}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_cores(tmp_path) == expected
