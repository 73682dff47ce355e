"""Each document's commands and code run in the order printed; what takes long is parsed."""

import gzip
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.artifacts import variant
from support.idx import write_idx
from support.local_http import served
from support.repository import REPOSITORY
from support.server import REAL, running
from werkzeug.exceptions import NotFound
from werkzeug.middleware.shared_data import SharedDataMiddleware

from inkdigits.cli.main import main
from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import ARTIFACT_NAME
from inkdigits.settings import VARIABLES

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
PAGES += sorted((REPOSITORY / "docs").glob("*.md"))
TOKEN = "a token of sixteen"
# The id that docs/api.md writes into an address.
SOME_ID = "019ab3f0-5a6b-7c3d-8e4f-0123456789ab"
LONG = "serve|train|train-segmenter|synthesise|quantise|benchmark"
BEFORE = f"""
set -euo pipefail
{"".join(f"{name}() {{ :; }}; " for name in ("docker", "kubectl", "pip", "pipx", "python3", "uvx"))}
make() {{ command make --dry-run -C "{REPOSITORY}" "$@" > made; }}
curl() {{ command curl --silent --show-error --fail-with-body "$@"; }}
inkdigits() {{ case ${{1-}} in {LONG}) ;; *) python -m inkdigits "$@" ;; esac; }}
"""


def blocks(page, *languages):
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    return [(language, block) for language, block in found if language in languages]


def runnable(page):
    return blocks(page, "sh", "python")


WITH_COMMANDS = [page for page in PAGES if runnable(page)]


def names(page):
    return page.name


@pytest.fixture
def folder(digits, tmp_path):
    """What the pages name: pictures, labelled folders, an archive, a trained model."""
    inks, labels = digits
    for number in range(400):
        path = tmp_path / ("own" if number < 300 else "check") / str(labels[number])
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}.png").write_bytes(encode_png(255 - inks[number]))
    seven = (REPOSITORY / "docs" / "images" / "seven.png").read_bytes()
    row = Image.fromarray(255 - np.hstack(inks[:16]))
    for name in ("docs/images/seven", "seven", "pictures/1", "amounts/1"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seven)
    for name in ("amount", "card", "page"):
        row.resize((16 * 56, 56)).save(tmp_path / f"{name}.png")
    (tmp_path / "fields.json").write_text("[[0, 0, 56, 56]]")
    subprocess.run(["zip", "-q", "more.zip", "seven.png"], cwd=tmp_path, check=False)
    write_idx(tmp_path / "ink", inks[:10])
    idx = tmp_path / "train-images-idx3-ubyte.gz"
    idx.write_bytes(gzip.compress((tmp_path / "ink").read_bytes()))
    variant(tmp_path / "models" / "tuned" / ARTIFACT_NAME, "version-tuned")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    return tmp_path


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return {
        "INKDIGITS_DATA_DIR": str(tmp_path_factory.mktemp("log")),
        "INKDIGITS_ADMIN_TOKEN": TOKEN,
    }


@pytest.fixture(scope="module")
def service(settings):
    with running(program=REAL, **settings) as service:
        yield service


@pytest.mark.e2e
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=names)
def test_commands_run_in_the_order_printed(page, folder, service, settings):
    for _, gate in blocks(page, "toml"):
        (folder / "gate.toml").write_text(gate)
    script = BEFORE
    for language, block in runnable(page):
        script += block if language == "sh" else f"python - <<'END'\n{block}END\n"
    # Other shells than bash complete by lines of their own.
    script = re.sub(r".*(?:zsh|fish)_source.*\n", "", script)
    kept = service.predict()[1]["id"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    how = {"env": {**os.environ, **settings, "PATH": path}, "capture_output": True, "text": True}
    with served(SharedDataMiddleware(NotFound(), {"/": str(folder)})) as elsewhere:
        for printed, here in (
            ("127.0.0.1:5000", f"127.0.0.1:{service.port}"),
            ("https://example.org", elsewhere),
            (SOME_ID, kept),
        ):
            script = script.replace(printed, here)
        command = ["bash", "-c", script]
        done = subprocess.run(command, **how, cwd=folder, input="y\n", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout.splitlines()
    assert [line for line in re.findall(r"# prints: (.*)", script) if line not in printed] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_setting_up_a_fresh_clone_prints_lines_while_it_takes_long(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)
    command = ["make", "-f", REPOSITORY / "Makefile", "serve", f"PYTHON={python}"]
    # A make that runs the tests hands its own options down; a user's shell has none.
    environment = {name: os.environ[name] for name in os.environ if "MAKE" not in name}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as made:
        try:
            assert made.stdout.readline().startswith("Installing what serving needs")
            assert made.stdout.readline() == made.stdout.readline() == "still installing\n"
        finally:
            os.killpg(made.pid, signal.SIGKILL)


def test_every_inkdigits_command_of_the_documents_is_valid():
    text = "\n".join(block for page in PAGES for _, block in blocks(page, "sh"))
    lines = text.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line[:10] == "inkdigits "]
    assert {command[1] for command in commands} >= {"serve", "predict", "train", "evaluate"}
    for _, name, *arguments in commands:
        main.commands[name].make_context(name, arguments).close()


def test_scripts_that_the_documents_name_have_the_options_that_they_name():
    text = "\n".join(page.read_text() for page in (*PAGES, *REPOSITORY.glob("*/README.md")))
    found = re.findall(r"python ((?:benchmarks|docs|examples)/\w+\.py)([^`\n]*)", text)
    assert len(found) > 15
    for script, arguments in found:
        source = (REPOSITORY / script).read_text(encoding="utf-8")
        shared = (REPOSITORY / "benchmarks" / "results.py").read_text(encoding="utf-8")
        options = re.findall(r"--[\w-]+", arguments)
        assert [one for one in options if f'"{one}"' not in source + shared] == [], script


def test_compose_and_what_the_documents_add_to_it_name_services_and_files_that_exist():
    services = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
    for one in services.values():
        if "build" in one:
            file = one["build"].get("dockerfile", "Dockerfile")
            assert (REPOSITORY / one["build"]["context"] / file).is_file()
    development = yaml.safe_load(
        (REPOSITORY / "deploy" / "docker" / "compose.dev.yaml").read_text()
    )["services"]
    assert services.keys() >= development.keys()
    for one in development.values():
        source, target, _ = one["volumes"][0].split(":")
        assert (REPOSITORY / source / "reader.py").is_file()
        version = re.search(r"/(python\d\.\d+)/", target)[1].replace("python", "python:")
        assert f"FROM {version}-slim" in (REPOSITORY / "Dockerfile").read_text()
    replicas = yaml.safe_load(
        (REPOSITORY / "deploy" / "docker" / "compose.replicas.yaml").read_text()
    )["services"]
    assert replicas.keys() == {"web", "redis"}
    assert set(replicas["web"]["environment"]) <= set(VARIABLES)
    for page in PAGES:
        for _, block in blocks(page, "yaml"):
            assert services.keys() >= yaml.safe_load(block).get("services", {}).keys()


def test_readme_is_short_and_installs_before_it_reads():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert text.index("pip install .") < text.index("inkdigits serve") < text.index("import inkd")


def test_reading_loads_nothing_that_windows_lacks():
    blocked = (
        "for name in ('fcntl', 'resource', 'pwd', 'grp', 'gunicorn'): sys.modules[name] = None"
    )
    code = f"import sys\n{blocked}\nfrom inkdigits.cli.main import main\nmain()"
    picture = str(REPOSITORY / "docs" / "images" / "seven.png")
    for command in ("predict", "read"):
        asked = [sys.executable, "-c", code, command, picture]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[1].split()[1] == "7", done.stderr
