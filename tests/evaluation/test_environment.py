import json
import os
import sys
from importlib.metadata import version
from unittest.mock import Mock

import pytest

from inkdigits.evaluation import environment


def test_hardware_names_the_machine_in_json():
    machine = json.loads(json.dumps(environment.hardware()))
    assert list(machine) == ["cpu", "cores", "memory_gib", "accelerator"]
    assert machine["cpu"]
    assert 1 <= machine["cores"] <= os.cpu_count()
    assert machine["memory_gib"] > 0.1


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("model\t\t: 1\nmodel name\t: Example CPU @ 3: GHz\nflags\t:\n", "Example CPU @ 3: GHz"),
        (None, "riscv64"),
        ("processor : 0\nBogoMIPS : 100\nmodel name :\n", "riscv64"),
    ],
)
def test_cpu_is_named_by_the_kernel_or_else_by_platform(tmp_path, monkeypatch, content, name):
    cpuinfo = tmp_path / "cpuinfo"
    if content is not None:
        cpuinfo.write_text(content)
    monkeypatch.setattr(environment, "CPUINFO", cpuinfo)
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(environment.platform, "machine", lambda: "riscv64")
    assert environment.hardware()["cpu"] == name


def test_what_cannot_be_read_is_unknown_instead_of_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "CPUINFO", tmp_path)  # a folder: reading it is an OSError
    monkeypatch.setattr(environment.platform, "processor", lambda: "")
    monkeypatch.setattr(environment.platform, "machine", lambda: "")
    monkeypatch.delattr(environment.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(environment.os, "cpu_count", lambda: None)
    monkeypatch.setattr(environment.os, "sysconf", Mock(side_effect=ValueError))
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    assert set(environment.hardware().values()) == {"unknown"}


def test_versions_are_those_installed_and_say_what_is_not(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-inkdigits"))
    found = environment.versions()
    assert found.pop("system")
    expected = {"numpy": version("numpy"), "no-such-package-inkdigits": "not installed"}
    assert found == {"python": sys.version.split()[0], **expected}
