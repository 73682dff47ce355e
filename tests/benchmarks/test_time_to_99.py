import json
import subprocess
import sys

from support.repository import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "time_to_99.py"


def compare(*arguments):
    return subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_both_recipes_run_cold_to_the_same_target_and_are_reported(small_mnist, tmp_path):
    report = tmp_path / "report.json"
    done = compare(
        "--data", small_mnist, "--runs", 1, "--every", 640, "--target", 0.5, "--json", report
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(report.read_text())
    assert [run["recipe"] for run in result["runs"]] == ["ours", "reference"]
    for run in result["runs"]:
        assert run["accuracies"][-1] >= 0.5
        assert all(accuracy < 0.5 for accuracy in run["accuracies"][:-1])
        assert run["validations"] == len(run["accuracies"])
        assert 640 * (run["validations"] - 1) < run["pictures"] <= 1250 * run["validations"]
        assert run["seconds"] > run["validation_seconds"] > 0
    medians = result["median_seconds"]
    assert result["times_faster"] == medians["reference"] / medians["ours"]
    assert result["validation_pictures"] == 75
    assert f"{result['times_faster']:.2f} times faster" in done.stdout


def test_target_that_is_never_reached_is_an_error_and_no_figure(small_mnist, tmp_path):
    report = tmp_path / "report.json"
    done = compare(
        "--data", small_mnist, "--runs", 1, "--every", 640, "--target", 1.5, "--json", report
    )
    assert done.returncode != 0
    assert "did not reach 150 %" in done.stderr
    assert not report.exists()


def test_interval_that_is_not_whole_batches_is_refused():
    done = compare("--data", "anywhere", "--every", 1000)
    assert done.returncode == 2
    assert "multiple of 64" in done.stderr
