import json

import pytest
from support.commands import run


@pytest.mark.trains
def test_evaluate_reports_robustness_as_a_table_json_and_a_figure(small_mnist, tmp_path):
    options = ("--robustness", "--per-family", 3, "--figures", tmp_path)
    arguments = ("evaluate", "--data", small_mnist, "--no-download", *options)
    text = run(*arguments).stdout
    assert "mean of the corruptions" in text
    assert (tmp_path / "robustness.png").is_file()
    scores = json.loads(run(*arguments, "--severity", 1, "--json").stdout)
    assert {tuple(s["severities"]) for s in scores["digits"]} == {(), (1,)}
    assert {s["n"] for s in scores["non_digits"]} == {3}


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["evaluate", "--per-family", 3, "--data"], 2, "--robustness"),
        (["evaluate", "--no-download", "--data"], 1, "--download"),
        (["calibrate", "--run"], 1, "mnist_classifier.pt"),
        (["export", "--run"], 1, "mnist_classifier.pt"),
    ],
)
def test_command_names_what_is_missing(command, code, message, tmp_path):
    assert message in run(*command, tmp_path, exit_code=code).stderr


@pytest.mark.trains
def test_benchmark_compares_and_draws(tmp_path):
    chart = tmp_path / "speedups.png"
    out = json.loads(run("benchmark", "--quick", "--json", "--chart", chart).stdout)
    assert chart.is_file()
    assert {"rows", "hardware", "versions", "accelerator"} <= out.keys()
