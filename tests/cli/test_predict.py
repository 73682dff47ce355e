import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import run
from support.pictures import encoded, seven

import inkdigits


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    (folder / "seven.png").write_bytes(encoded(seven()))
    (folder / "deeper" / "blank.jpg").write_bytes(encoded(Image.new("L", (50, 50), 255), "JPEG"))
    for name in ("notes.txt", "._seven.png"):
        (folder / name).write_text("not a picture, and not asked for")
    os.mkfifo(folder / "pipe.png")  # reading it would wait for ever
    return folder


def rows_of(*arguments):
    return json.loads(run("predict", "--json", *arguments).stdout)["predictions"]


def test_predict_prints_a_table_of_files_and_folders(pictures):
    done = run("predict", pictures, pictures / "seven.png")
    assert done.stderr.strip() == "2 accepted, 0 for review, 1 rejected (1 blank)"
    head, blank, *sevens = done.stdout.splitlines()
    assert head.split() == ["file", "digit", "confidence", "decision"]
    assert (blank.split()[1], blank.endswith("reject (blank)")) == ("-", True)
    assert [line.split()[1] for line in sevens] == ["7", "7"]
    assert sevens[0] == sevens[1]
    head, line = run("predict", "--probabilities", pictures / "seven.png").stdout.splitlines()
    assert head.split()[3:] == [*"0123456789", "runner-up", "decision"]
    assert float(line.split()[11]) > 99


def test_rejected_picture_has_no_digit_but_the_closest_one(pictures, monkeypatch):
    monkeypatch.setattr(
        "inkdigits.reader.DigitReader._decide", lambda *_: ("reject", "not_a_digit", None)
    )
    line = run("predict", pictures / "seven.png").stdout.splitlines()[1]
    assert (line.split()[1], "reject (not a digit; closest 7, " in line) == ("-", True)


def test_risk_holds_in_a_file_too(pictures):
    out = pictures.parent / "out.csv"
    done = run("predict", pictures, "--out", out, "--risk", 1e-9, "--workers", 1)
    assert "0 accepted, 1 for review, 1 rejected (1 blank)" in done.stdout
    rows = csv.DictReader(out.read_text().splitlines())
    assert [(row["digit"], row["closest"]) for row in rows] == [("", ""), ("7", "7")]


def test_predict_json_is_for_programs(pictures):
    answer = json.loads(run("predict", "--json", pictures / "seven.png").stdout)
    (prediction,) = answer["predictions"]
    assert (prediction["prediction"], len(prediction["probabilities"])) == (7, 10)
    assert answer["model_version"] == inkdigits.load().model_version


def test_predict_at_a_stated_risk_says_what_it_costs(pictures):
    seven_png = pictures / "seven.png"
    loose = run("predict", "--risk", 0.01, seven_png)
    assert "calibration digits" in loose.stderr
    assert loose.stdout.splitlines()[1].endswith("accept")
    impossible = run("predict", "--risk", 1e-9, seven_png)
    assert "cannot meet the risk, so it accepts nothing" in impossible.stderr
    assert impossible.stdout.splitlines()[1].endswith("review")
    (row,) = rows_of("--risk", 0.01, seven_png)
    coverage = inkdigits.load().metadata.policy.choice(0.01).coverage
    assert (row["risk"], row["coverage"]) == (0.01, coverage)
    run("predict", "--risk", 1, seven_png, exit_code=2)


def test_predict_explains_by_a_runner_up_and_two_pictures(pictures, tmp_path):
    folder = tmp_path / "why" / "deeper"
    more = pictures / "deeper" / "seven.png"
    more.write_bytes((pictures / "seven.png").read_bytes())
    result = run("predict", "--explain", "--explain-to", folder, pictures)
    assert f"are written to {folder}" in result.stderr
    lines = result.stdout.splitlines()[1:]
    assert ["; runner-up " in line for line in lines] == [False, True, True]
    assert {path.name for path in folder.iterdir()} == {
        *("blank.ink.png", "blank.saliency.png", "seven.ink.png", "seven.saliency.png"),
        *("seven-2.ink.png", "seven-2.saliency.png"),
    }
    with Image.open(folder / "seven.ink.png") as ink:
        assert (ink.size, ink.mode) == ((28, 28), "L")
    (row,) = rows_of("--explain", "--explain-to", folder, more)
    explanation = inkdigits.load().explain(more)
    assert row["runner_up"] == explanation.runner_up
    assert Path(row["saliency_png"]).read_bytes() == explanation.overlay


def test_predict_that_cannot_write_its_explanation_says_where(pictures, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "deeper"
    result = run("predict", "--explain-to", folder, pictures, exit_code=1)
    assert f"{folder} cannot be read or written" in result.stderr


def test_file_that_cannot_be_read_is_reported_and_the_others_are_read(pictures):
    given = [pictures / name for name in ("notes.txt", "nowhere.png", "seven.png")]
    result = run("predict", *given, exit_code=1)
    assert "notes.txt  " in result.stdout
    assert "2 of 3 pictures cannot be read" in result.stderr
    assert " 7 " in result.stdout


def test_folder_without_pictures_and_missing_model_are_one_line(pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "contains no pictures" in run("predict", tmp_path / "empty", exit_code=1).stderr
    result = run("predict", "--model", tmp_path / "x.onnx", pictures, exit_code=1)
    there = f"Error: there is no artifact at {tmp_path / 'x.onnx'}. Check the path in --model"
    assert result.stderr.startswith(there)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "out.txt"], 1, "must end in .csv, .jsonl, .parquet"),
        (["--out", "out.csv", "--device", "cpu"], 2, "do not work with --out"),
        (["--workers", "2"], 2, "need --out"),
        ([], 2, "a.npy needs an option --out"),
        (["s3://digits/a.png"], 2, "needs an option --out"),
    ],
)
def test_wrong_calls_say_what_is_wrong(arguments, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((2, 28, 28), np.uint8))
    assert message in run("predict", "a.npy", *arguments, exit_code=code).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
