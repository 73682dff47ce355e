import json

import pytest
from support.commands import run


@pytest.mark.trains
def test_evaluate_reports_robustness_as_a_table_json_and_a_figure(small_mnist, tmp_path):
    arguments = [
        *("evaluate", "--data", small_mnist, "--no-download", "--robustness"),
        *("--per-family", 3, "--figures", tmp_path),
    ]
    text = run(*arguments).stdout
    assert "mean of the corruptions" in text
    assert (tmp_path / "robustness.png").is_file()
    scores = json.loads(run(*arguments, "--severity", 1, "--json").stdout)
    assert {tuple(s["severities"]) for s in scores["digits"]} == {(), (1,)}
    assert {s["n"] for s in scores["non_digits"]} == {3}


def test_options_of_robustness_are_rejected_without_it(tmp_path):
    result = run("evaluate", "--data", tmp_path, "--per-family", 3, exit_code=2)
    assert "--robustness" in result.stderr


@pytest.mark.parametrize(
    ("command", "folder", "message"),
    [
        (["calibrate"], "--run", "mnist_classifier.pt"),
        (["export"], "--run", "mnist_classifier.pt"),
        (["evaluate", "--no-download"], "--data", "--download"),
    ],
)
def test_command_names_what_is_missing(command, folder, message, tmp_path):
    assert message in run(*command, folder, tmp_path, exit_code=1).stderr


@pytest.mark.trains
def test_benchmark_compares_and_draws(tmp_path):
    chart = tmp_path / "speedups.png"
    out = json.loads(run("benchmark", "--quick", "--json", "--chart", chart).stdout)
    assert chart.is_file()
    assert {"rows", "hardware", "versions", "accelerator"} <= out.keys()
