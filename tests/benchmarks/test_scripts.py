"""Each script in benchmarks/ can be imported, and those that can run for seconds do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.repository import REPOSITORY

SCRIPTS = sorted(
    path.stem
    for path in (REPOSITORY / "benchmarks").glob("*.py")
    if "options(__doc__" in path.read_text(encoding="utf-8")
)
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_begins_with_the_question_that_the_script_answers(benchmarks, script):
    pytest.importorskip("onnx")
    module = benchmarks(script)
    assert callable(module.main)
    assert module.__doc__.partition("\n\n")[0].endswith("?")


@pytest.mark.slow
@ON_LINUX
def test_only_requests_of_killed_workers_are_lost_in_chaos(benchmarks):
    report, wrong = benchmarks("chaos").chaos(seconds=12, every=3)
    assert wrong == []
    assert report["kills"] >= 2


@pytest.mark.e2e
@ON_LINUX
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk makes the load")
def test_serving_checks_every_answer_and_names_what_is_skipped(tmp_path):
    names = ["--only", "no-page", "BentoML", "--rounds", "1", "--seconds", "1"]
    found = run("serving.py", *names, "--json", tmp_path / "serving.json")
    assert list(found["results"]) == ["inkdigits serve --no-page (no log)"]


def run(script, *arguments):
    """Run a script that ends with the path of its JSON file, and return what it wrote there."""
    command = [sys.executable, "-W", "error", REPOSITORY / "benchmarks" / script, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(Path(arguments[-1]).read_text())
