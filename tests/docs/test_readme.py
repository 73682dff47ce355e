"""The README's commands and code are run; long commands, and the other pages', are parsed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.repository import REPOSITORY
from support.server import running

from inkdigits.cli.main import main

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
SHELL = [block for language, block in BLOCKS if language == "sh"]
# These end by themselves in seconds; the others are parsed.
QUICK = ("predict",)


def commands(program, blocks=SHELL):
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.split()[:1] == [program]]


def test_two_commands_are_promised_and_make_knows_them():
    assert all(["make", target] in commands("make") for target in ("serve", "test"))
    assert all(target in README for target in ("`make check`", "`make test-slow`"))
    for command in commands("make"):
        subprocess.run([*command, "--dry-run"], cwd=REPOSITORY, check=True, capture_output=True)


@pytest.mark.parametrize("page", ["README.md", "docs/numbers.md"])
def test_python_example_runs_and_prints_what_it_says(page, capsys, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    examples = re.findall(r"```python\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)
    for example in examples:
        exec(compile(example, page, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == re.findall(r"# prints: (.*)", "\n".join(examples)) != []


def test_every_inkdigits_command_of_the_documents_is_valid():
    pages = [page.read_text() for page in sorted((REPOSITORY / "docs").glob("*.md"))]
    found = commands("inkdigits", re.findall(r"```sh\n(.*?)```", "".join([README, *pages]), re.S))
    assert {command[1] for command in found} >= {"serve", "predict", "train", "evaluate"}
    for command in found:
        name, *arguments = command[1:]
        main.commands[name].make_context(name, arguments).close()


@pytest.mark.e2e
def test_quick_commands_run():
    quick = [command for command in commands("inkdigits") if command[1] in QUICK]
    assert quick
    for command in quick:
        program = [sys.executable, "-m", *command]
        subprocess.run(program, cwd=REPOSITORY, check=True, capture_output=True)


@pytest.mark.e2e
def test_curl_examples_answer_as_the_readme_says():
    blocks = [block for block in SHELL if "curl" in block]
    assert blocks
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    how = {"cwd": REPOSITORY, "env": {**os.environ, "PATH": path}}
    with running(program=["-m", "inkdigits", "serve"]) as service:
        for block in blocks:
            script = block.replace("127.0.0.1:5000", f"127.0.0.1:{service.port}")
            command = ["bash", "-euo", "pipefail", "-c", script]
            done = subprocess.run(command, **how, check=True, capture_output=True, text=True)
            assert json.loads(done.stdout)["prediction"] == 7


def test_layout_names_only_files_that_exist():
    layout = next(block for language, block in BLOCKS if language == "text" and "src/" in block)
    names = re.findall(r"^(\S+)", layout, re.MULTILINE)
    assert len(names) > 8
    assert [name for name in names if not (REPOSITORY / name).exists()] == []
