import json

import pytest
from support.commands import run


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


@pytest.mark.parametrize("command", ["calibrate", "export"])
def test_command_that_needs_a_run_names_what_is_missing(command, tmp_path):
    result = run(command, "--run", tmp_path, exit_code=1)
    assert "mnist_classifier.pt" in result.stderr


def test_evaluate_without_data_says_how_to_get_it(tmp_path):
    result = run("evaluate", "--data", tmp_path, "--no-download", exit_code=1)
    assert "--download" in result.stderr


def test_benchmark_compares_and_draws(tmp_path):
    chart = tmp_path / "speedups.png"
    out = json.loads(run("benchmark", "--quick", "--json", "--chart", chart).stdout)
    assert chart.is_file()
    assert {"rows", "hardware", "versions", "accelerator"} <= out.keys()
