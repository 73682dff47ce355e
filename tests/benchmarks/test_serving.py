"""The parts of benchmarks/serving.py that need no peers, and one real round against our service."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.repository import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "peers")]

from contest import contenders, environments, load, pictures, report, verdicts  # noqa: E402
from contest.contenders import FLOOR, OURS, PEERS  # noqa: E402
from contest.running import Server, ServerError, right  # noqa: E402
from plain import prepare  # noqa: E402

from inkdigits import reader as inference  # noqa: E402
from inkdigits.model.artifact import shipped_artifact  # noqa: E402

EVERY = {one.name: one for one in (OURS, FLOOR, *PEERS)}


def one_round(*rates: float, p99: float = 9.0, failed: int = 0, wrong: int = 0, pss: float = 150.0):
    """A round as serving.py notes it, with these requests a second at 1, 8 and 64."""
    loads = {
        str(level): {
            "requests_per_second": rate,
            "p50": 1.0,
            "p95": 2.0,
            "p99": p99,
            "max": 20.0,
            "client_cpu_us": 30.0,
            "requests": int(rate),
            "failed": failed,
            "failures": {},
        }
        for level, rate in zip(load.CONNECTIONS, rates, strict=True)
    }
    memory = {"pss": pss, "rss": 2 * pss}
    return {"loads": loads, "memory_mb": memory, "first_answer_s": 0.5, "wrong": wrong}


def judged(**runs):
    names = {"DigitReader": "fastapi + DigitReader"}
    results = {names.get(name, name): verdicts.medians(found) for name, found in runs.items()}
    groups = {name: one.group for name, one in EVERY.items()}
    groups["fastapi + DigitReader"] = "serving layer"
    return {one.aim: one for one in verdicts.judge(results, groups)}


def test_what_wrk_prints_becomes_rates_milliseconds_and_failures():
    result = {
        "requests": 1000,
        "microseconds": 2_000_000,
        "wrong": 20,
        "connect": 0,
        "read": 3,
        "write": 0,
        "timeout": 1,
        "p50_us": 1500,
        "p95_us": 2500,
        "p99_us": 4000,
        "max_us": 9000,
    }
    found = load.parse(f"Running 2s test\n\nRESULT {json.dumps(result)}\n")
    assert found["requests_per_second"] == 490  # the wrong answers aren't in it
    assert (found["p50"], found["p95"], found["p99"], found["max"]) == (1.5, 2.5, 4, 9)
    assert found["failed"] == 24
    assert found["failures"] == {"wrong": 20, "read": 3, "timeout": 1}


def test_output_without_a_result_is_an_error():
    with pytest.raises(load.LoadError, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("inkdigits", '{"prediction":7,"confidence":0.99}'),
        ("fastapi", '{"prediction": 7}'),
        ("torchserve", '{\n  "prediction": 7\n}'),
        ("mlserver", '{"outputs":[{"name":"digit","shape":[1],"data":[7]}]}'),
    ],
)
def test_right_answer_is_the_digit_and_no_other(name, answer):
    assert right(EVERY[name], 7).search(answer)
    assert not right(EVERY[name], 1).search(answer)
    assert not right(EVERY[name], 7).search(answer.replace("7", "71"))


def test_every_contender_is_whole_and_its_application_is_there():
    for one in EVERY.values():
        assert "<image>" in one.body
        assert "<digit>" in one.pattern
        assert one.arrangement
        json.loads(one.body)
        parts = " ".join([*one.command, *(part for step in one.setup for part in step)])
        if one.group != "ours":
            named = re.findall(r"(\w+_(?:app|handler))", parts + json.dumps(one.files))
            assert named
            assert (contenders.PEERS_FOLDER / f"{named[0]}.py").is_file()


def test_aims_are_met_when_ours_is_as_fast_as_they_ask():
    found = judged(
        inkdigits=[one_round(1300, 2600, 2600)],
        demo=[one_round(180, 200, 200)],
        fastapi=[one_round(1000, 2000, 2000)],
        DigitReader=[one_round(1300, 2600, 2600)],
        floor=[one_round(3250, 6500, 6500)],
    )
    assert all(one.is_met for one in found.values())
    # 3 times: best peer, serving layer, floor; twice the demo; p99, memory, start, failures.
    assert len(found) == 3 * 3 + 2 + 4
    assert "1.30 times" in found["at least 1.3 times best peer at 8 connections"].found


def test_each_aim_is_missed_for_its_own_reason():
    found = judged(
        inkdigits=[one_round(1299, 2599, 1000, p99=9.1, failed=1, pss=201)],
        demo=[one_round(10, 260, 99)],
        fastapi=[one_round(1000, 2000, 500)],
        DigitReader=[one_round(1300, 1, 1)],
        floor=[one_round(3300, 1, 1)],
    )
    missed = {aim for aim, one in found.items() if not one.is_met}
    assert missed == {
        "at least 1.3 times best peer at 1 connection",
        "at least 1.3 times best peer at 8 connections",
        "at least 1 times fastapi + DigitReader at 1 connection",
        "at least 40% of the constant answer at 1 connection",
        "at least 10 times the demo's arrangement at 8 connections",
        "p99 at 8 connections no longer than the best peer's",
        "under 200 MB resident",
        "no failed request",
    }


def test_nothing_is_judged_without_ours():
    assert judged(fastapi=[one_round(1, 1, 1)]) == {}


def test_rounds_become_medians_and_every_failure_is_counted():
    rounds = [one_round(1, 10, 100), one_round(3, 30, 300, failed=1), one_round(2, 5, 900, wrong=2)]
    found = verdicts.medians(rounds)
    rates = [load["requests_per_second"] for load in found["loads"].values()]
    assert rates == [2, 10, 300]
    assert found["failed"] == 3 * 1 + 2
    assert found["rounds"] == 3


def test_strongest_peers_are_so_over_all_loads():
    results = {
        "even": verdicts.medians([one_round(100, 100, 100)]),
        "wide": verdicts.medians([one_round(1, 100, 5000)]),
        "weak": verdicts.medians([one_round(1, 1, 1)]),
        "best": verdicts.medians([one_round(300, 300, 300)]),
    }
    assert verdicts.strongest(results) == ["best", "even", "wide"]


def test_table_and_chart_show_ours_first_and_the_floor_last(tmp_path):
    results = {
        name: {
            **verdicts.medians([one_round(*rates)]),
            "group": EVERY[name].group,
            "site_packages_mb": 123.4,
        }
        for name, rates in {
            "floor": (4000, 5000, 6000),
            "demo": (1, 2, 3),
            "fastapi": (100, 200, 300),
            "inkdigits": (1234, 2000, 3000),
        }.items()
    }
    assert report.in_order(results) == ["inkdigits", "fastapi", "demo", "floor"]
    text = report.table(results)
    assert len(text.splitlines()) == 2 + 3 * 4
    assert re.search(r"inkdigits +1 +1,234 +1\.0 +2\.0 +9\.0 +0 +150 +0\.50 +123", text)
    lines = report.markdown(results).splitlines()
    assert lines[2] == "| **inkdigits** | 1,234/s | 2,000/s | 3,000/s | 9.0 ms | 150 MB | 0.50 s |"
    assert len(lines) == 2 + 4
    charts = [tmp_path / "a.png", tmp_path / "b" / "c.png"]
    report.draw(results, "nothing real", charts)
    with Image.open(charts[0]) as one, Image.open(charts[1]) as other:
        assert one.size == other.size


def test_plain_preprocessing_takes_both_grounds_alike(digits):
    ink = digits[0][0]
    opaque, transparent = (
        prepare(pictures.canvas_png(ink, transparent=flag)) for flag in (False, True)
    )
    assert opaque.shape == (28, 28)
    assert opaque.dtype == np.float32
    np.testing.assert_allclose(opaque, transparent, atol=0.03)


@pytest.mark.parametrize(
    ("requirement", "name"),
    [
        ("Ray[serve]>=2", "ray"),
        ("torch==2.13.0", "torch"),
        ("setuptools<81", "setuptools"),
        ("torch_model_archiver", "torch-model-archiver"),
        (str(REPOSITORY), "inkdigits"),
    ],
)
def test_requirement_has_a_name(requirement, name):
    assert environments.requirement_name(requirement) == name


def test_environment_that_cannot_be_installed_is_an_error_with_pips_words(tmp_path, monkeypatch):
    def fail(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "no matching distribution")

    monkeypatch.setattr(environments.subprocess, "run", fail)
    with pytest.raises(environments.InstallError, match="x can't be installed: no matching"):
        environments.prepare(tmp_path, "x", ("nothing",))
    assert not (tmp_path / "x" / "installed.json").exists()


def test_environments_are_made_again_only_when_they_would_hold_something_else(
    tmp_path, monkeypatch
):
    commands = []

    def run(command, **_):
        commands.append([str(part) for part in command])
        if "venv" in command:
            folder = Path(command[-1]) / "lib" / "python3" / "site-packages"
            for name, size in (("flask", 3_000_000), ("pip", 9_000_000)):
                (folder / name).mkdir(parents=True)
                (folder / name / "code.py").write_bytes(b"#" * size)
        listed = json.dumps([{"name": "Flask", "version": "3"}, {"name": "other", "version": "1"}])
        return subprocess.CompletedProcess(command, 0, listed, "")

    monkeypatch.setattr(environments.subprocess, "run", run)
    made = environments.prepare(tmp_path, "x", ("flask",))
    assert made.site_packages_mb == 3.0  # without pip
    assert made.versions == {"Flask": "3"}
    commands.clear()
    assert environments.prepare(tmp_path, "x", ("flask",)) == made
    assert not commands
    # Our reader comes into a peer's environment when it's needed, and again when it has changed.
    assert environments.add_ours(made.folder)
    assert not environments.add_ours(made.folder)
    monkeypatch.setattr(environments, "source_digest", lambda: "another")
    assert environments.add_ours(made.folder)
    assert [command[-2:] for command in commands] == 2 * [["install", str(REPOSITORY)]]
    assert environments.prepare(tmp_path, "x", ("flask",)) == made
    commands.clear()
    environments.prepare(tmp_path, "x", ("flask>=4",))
    assert "venv" in commands[0]


class Installed:
    """The environment that the tests run in, as one that ``prepare`` has made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = Path(inference.__file__).parent.parent
        (folder / "bin").mkdir()
        (folder / "bin" / "inkdigits").write_text(
            f'#!/bin/sh\nPYTHONPATH={source} exec {sys.executable} -m inkdigits "$@"\n'
        )
        (folder / "bin" / "inkdigits").chmod(0o755)


@pytest.fixture(scope="module")
def some_pictures():
    return pictures.make(inference.load(), None, of_each=2)


def test_pictures_of_every_digit_are_there_on_both_grounds(some_pictures):
    reader = inference.load()
    for digit in range(10):
        images = [base64.b64decode(image) for image in some_pictures.of(digit)]
        assert len(images) == len(set(images)) == 4
        assert [one.digit for one in reader.predict_batch(images)] == [digit] * 4
        opacity = [np.asarray(Image.open(io.BytesIO(image)))[..., 3].min() for image in images]
        assert opacity == [255, 0, 255, 0]
    assert some_pictures.describe()["pictures"] == 40


@pytest.fixture
def start(tmp_path, some_pictures):
    """Starts a contender in the tests' own environment."""

    def started(contender):
        weights = {"onnx": shipped_artifact()}
        work = tmp_path / "work"
        return Server(contender, Installed(tmp_path), work, weights, some_pictures, fresh=True)

    return started


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk isn't installed")
def test_round_against_our_own_service_is_measured_and_checked(start, some_pictures):
    with start(OURS) as server:
        assert server.check() == 0
        found = load.run(OURS, server.port, some_pictures.of(3), 3, 4, 1)
        # The same pictures held against another digit: the check must see that they are wrong.
        mistaken = load.run(OURS, server.port, some_pictures.of(3), 4, 4, 1)
        memory = server.memory_mb()
    assert found["failed"] == 0
    assert found["requests_per_second"] > 0
    assert found["client_cpu_us"] > 0
    assert 0 < found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert mistaken["failures"] == {"wrong": mistaken["requests"]}
    assert mistaken["requests_per_second"] == 0
    assert 0 < memory["pss"] <= memory["rss"]
    assert server.first_answer_s > 0
    with pytest.raises(ConnectionRefusedError):
        server._asks(server._connect(), 3, some_pictures.of(3)[0])


def test_server_that_ends_is_an_error_with_the_end_of_its_log(start):
    broken = replace(OURS, command=("<bin>/inkdigits", "serve", "--port", "nonsense"))
    with pytest.raises(ServerError, match="nonsense"), start(broken):
        pass


def test_readme_has_the_published_figures():
    published = json.loads((BENCHMARKS / "serving.json").read_text())
    readme = (REPOSITORY / "README.md").read_text()
    for line in report.markdown(published["results"]).splitlines():
        assert line in readme
    best = [one["aim"] for one in published["verdicts"] if not one["is_met"]]
    assert (
        f"{len(published['verdicts']) - len(best)} of {len(published['verdicts'])} aims" in readme
    )
