"""The package as people install it: built, checked, and serving from a clean environment."""

import json
import os
import subprocess
import tarfile
import urllib.request
import venv
import zipfile

import pytest
from support.pictures import encoded, seven
from support.repository import REPOSITORY
from support.server import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def python_of(folder, *install):
    """Make an environment, install into it, and return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *install]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "connection" in done.stderr.lower():
        pytest.skip("no package index is reachable")
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, which twine finds no fault with."""
    folder = tmp_path_factory.mktemp("built")
    python = python_of(folder / "tools", "build", "twine")
    out = folder / "dist"
    subprocess.run([python, "-m", "build", "-o", out, REPOSITORY], check=True, capture_output=True)
    wheel, source = next(out.glob("*.whl")), next(out.glob("*.tar.gz"))
    subprocess.run([python, "-m", "twine", "check", "--strict", wheel, source], check=True)
    return wheel, source


def test_wheel_has_what_serving_needs_and_no_tests(built):
    wheel, source = built
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"inkdigits"}
    inside = {name for name in names if not name.endswith(".py")}
    package = REPOSITORY / "src" / "inkdigits"
    data = [p for p in package.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")]
    assert {str(path.relative_to(package.parent)) for path in data} <= inside
    with tarfile.open(source) as archive:
        assert not [name for name in archive.getnames() if "/tests" in name]


def test_installed_wheel_serves_and_names_its_extras(built, tmp_path):
    python = python_of(tmp_path / "clean", built[0])
    command = python.with_name("inkdigits")
    port = free_port()
    environ = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "INKDIGITS_DATA_DIR": str(tmp_path / "data"),
    }
    extra = [command, "train", "--data", tmp_path, "--no-download"]
    done = subprocess.run(
        extra, capture_output=True, text=True, env=environ, cwd=tmp_path, check=False
    )
    assert "run pip install 'inkdigits[train]'" in done.stderr
    with subprocess.Popen(
        [command, "serve", "--port", str(port), "--workers", "1"],
        stderr=subprocess.PIPE, text=True, env=environ, cwd=tmp_path,
    ) as service:  # fmt: skip
        try:
            assert any("Ctrl-C stops" in line for line in service.stderr)
            request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", encoded(seven()))
            request.add_header("Content-Type", "image/png")
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert json.load(answer)["prediction"] == 7
        finally:
            service.terminate()
    assert service.returncode == 0
    version = [python, "-m", "inkdigits", "--version"]
    assert "version" in subprocess.run(version, capture_output=True, text=True, check=True).stdout
