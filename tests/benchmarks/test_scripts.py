"""Each script in benchmarks/ starts, and those that can run for seconds do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.repository import REPOSITORY

SCRIPTS = sorted(
    path
    for path in (REPOSITORY / "benchmarks").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    path = REPOSITORY / "benchmarks" / script
    command = [sys.executable, "-W", "error", str(path), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)


@pytest.mark.parametrize(
    "script", [path.name for path in SCRIPTS if "options(__doc__)" in path.read_text()]
)
def test_help_begins_with_the_question_that_the_script_answers(script: str) -> None:
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "?" in done.stdout.partition("\n\n")[2].partition("\n\n")[0]


@ON_LINUX
def test_history_is_timed_over_a_short_log(benchmarks: Any) -> None:
    found = benchmarks("history").measure(rows=300, repeats=2)
    assert all(figures["max"] >= 0 for figures in found["milliseconds"].values())


@ON_LINUX
@pytest.mark.timeout(600)
def test_only_requests_of_killed_workers_are_lost_in_chaos(benchmarks: Any) -> None:
    pytest.importorskip("onnx")
    report, wrong = benchmarks("chaos").chaos(seconds=12, every=3)
    assert wrong == []
    assert report["kills"] >= 2


@ON_LINUX
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk makes the load")
def test_serving_checks_every_answer_and_names_what_is_skipped(tmp_path: Path) -> None:
    out = tmp_path / "serving.json"
    names = ["--only", "no-page", "BentoML", "--rounds", "1", "--seconds", "1"]
    done = run("serving.py", *names, "--json", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["results"]


def test_both_recipes_reach_the_target_in_a_new_process(small_mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    small = ["--runs", "1", "--every", "640", "--target", "0.5"]
    done = run("time_to_99.py", "--data", small_mnist, *small, "--json", out)
    assert done.returncode == 0, done.stderr
    runs = json.loads(out.read_text())["runs"]
    assert [one["recipe"] for one in runs] == ["ours", "reference"]
    assert all(one["accuracies"][-1] >= 0.5 for one in runs)
