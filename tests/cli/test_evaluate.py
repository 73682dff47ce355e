import json
import sys

import pytest
from support.commands import run

from inkdigits.ink.png import encode_png


@pytest.mark.trains
def test_evaluate_reports_robustness_as_a_table_json_and_a_figure(small_mnist, tmp_path):
    options = ("--robustness", "--per-family", 3, "--figures", tmp_path)
    arguments = ("evaluate", "--data", small_mnist, "--no-download", *options)
    text = run(*arguments).stdout
    assert "mean of the corruptions" in text
    assert (tmp_path / "robustness.png").is_file()
    scores = json.loads(run(*arguments, "--json").stdout)
    assert {s["n"] for s in scores["non_digits"]} == {3}


def test_evaluate_scores_a_folder_of_ones_own_without_pytorch(tmp_path, digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    inks, labels = digits
    for number, (ink, label) in enumerate(zip(inks[:40], labels, strict=False)):
        folder = tmp_path / "own" / (str(label) if number else "none")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode_png(255 - ink))
    (tmp_path / "own" / "7" / "bad.png").write_bytes(b"no picture")
    arguments = ("evaluate", "--data", tmp_path / "own", "--figures", tmp_path)
    done = run(*arguments)
    assert "bad.png" in done.stderr
    assert "on 40 labelled pictures" in done.stdout
    assert "digit 7" in done.stdout
    scores = json.loads(run(*arguments, "--json").stdout)
    everything = scores["scores"][0]
    assert (everything["name"], everything["n"]) == ("all", 40)
    # What is labelled as no digit and read as one is wrong.
    assert scores["misread"][0]["label"] == -1
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "bad.png" in page
    assert "http" not in page


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["evaluate", "--per-family", 3, "--data"], 2, "--robustness"),
        (["evaluate", "--robustness", "--data", "a", "--data"], 2, "one --data"),
        (["evaluate", "--no-download", "--data"], 1, "contains no labelled pictures"),
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
