"""The examples run as they are called, and read most of what they draw."""

import re
import subprocess
import sys

import pytest
from support.repository import REPOSITORY
from support.server import REAL, running

pytestmark = pytest.mark.e2e


def run(name, folder, *arguments):
    command = [sys.executable, str(REPOSITORY / "examples" / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "least"), [("marksheet", 36), ("sudoku", 75)])
def test_cells_are_read(name, least, tmp_path):
    printed = run(name, tmp_path)
    assert int(re.search(r"(\d+) of \d+ cells", printed)[1]) >= least


def test_pictures_of_your_own_calibrate_a_model(tmp_path):
    assert re.search(r"models/own: \d+ of 300 accepted", run("calibrate", tmp_path))


def test_client_gives_feedback_to_a_service(tmp_path):
    with running(program=REAL) as service:
        printed = run("feedback", tmp_path, f"http://127.0.0.1:{service.port}")
    assert "20 pictures" in printed


def test_each_example_is_in_the_list():
    text = (REPOSITORY / "examples" / "README.md").read_text(encoding="utf-8")
    assert [p.name for p in (REPOSITORY / "examples").glob("*.py") if p.name not in text] == []
