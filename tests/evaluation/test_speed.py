import dataclasses
import json

import numpy as np
import pytest
import torch

from inkdigits.decision.policy import DecisionPolicy
from inkdigits.errors import (
    ArtifactNotFoundError,
    BackendUnavailableError,
    ConfigError,
    InkdigitsError,
)
from inkdigits.evaluation import speed as accelerator
from inkdigits.evaluation import timing
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.evaluation.timing import BenchmarkResult, Row
from inkdigits.model.artifact import write_atomically
from inkdigits.model.networks import MNISTClassifier
from inkdigits.training.export import export

CPU, ONNX = "PyTorch, CPU", "ONNX Runtime, CPU"


@pytest.fixture(scope="module")
def artifact_path(tmp_path_factory):
    torch.manual_seed(0)
    content = export(MNISTClassifier().state_dict(), 1.0, DecisionPolicy(None, 0.01, 0.95), {})
    path = tmp_path_factory.mktemp("artifact") / "model.onnx"
    write_atomically(path, content)
    return path


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(accelerator, "TRAINING_BATCH", 4)


@pytest.fixture
def on_a_mere_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(accelerator, "autocast_dtype", lambda device: None)


def run(artifact_path, **options):
    return accelerator.run_benchmark(
        **{"sizes": (20, 30), "batches": (1, 3), "repeats": 3, **options},
        artifact_path=artifact_path,
    )


@pytest.fixture
def measured():
    """Made by hand: an accelerator that is 4 times as fast at one task and slower at another."""
    rows = (
        Row("reading digits, batch 1", CPU, 2e-4, 1e-4, 3e-4, 5000.0, "pictures/s"),
        Row("reading digits, batch 1", "PyTorch, cuda", 4e-4, 4e-4, 4e-4, 2500.0, "pictures/s"),
        Row("reading digits, batch 1", ONNX, 1e-4, 1e-4, 2e-4, 10000.0, "pictures/s"),
        Row("matrix product, 10 x 10", CPU, 2.0, 1.5, 2.5, 1e-6, "GFLOP/s"),
        Row("matrix product, 10 x 10", "PyTorch, cuda", 0.5, 0.5, 0.5, 4e-6, "GFLOP/s"),
    )
    return BenchmarkResult(rows, "Example GPU", 2, 3, hardware(), versions(), ("A note.",))


def test_without_an_accelerator_the_cpu_contenders_compare_and_the_table_says_so(
    artifact_path, on_a_mere_cpu
):
    told = []
    result = run(artifact_path, progress=told.append)
    assert result.accelerator is None
    assert [(row.task, row.contender) for row in result.rows] == [
        ("matrix product, 20 x 20", CPU),
        ("matrix product, 30 x 30", CPU),
        ("reading digits, batch 1", CPU),
        ("reading digits, batch 1", ONNX),
        ("reading digits, batch 3", CPU),
        ("reading digits, batch 3", ONNX),
        ("training step, batch 4", CPU),
    ]
    assert told == list(dict.fromkeys(row.task for row in result.rows))
    table = result.table()
    assert "Accelerator: none" in table
    assert "There is no accelerator here: PyTorch finds neither an NVIDIA GPU (cuda)" in table
    assert "Training in bfloat16 on the CPU is left out" in table
    assert [(row["task"], row["contender"]) for row in result.speedups()] == [
        ("reading digits, batch 1", ONNX),
        ("reading digits, batch 3", ONNX),
    ]


def test_asking_for_the_cpu_is_not_mistaken_for_a_machine_without_accelerator(artifact_path):
    result = run(artifact_path, device="cpu", sizes=(5,), batches=(1,), repeats=1)
    assert "only the CPU was asked for" in result.table()


def test_rates_are_the_work_over_the_median_time(artifact_path, on_a_mere_cpu):
    for row in run(artifact_path).rows:
        assert 0 < row.seconds_min <= row.seconds_median <= row.seconds_max
        work = {"20": 2 * 20**3 / 1e9, "30": 2 * 30**3 / 1e9}.get(
            row.task.split()[-1], float(row.task.split()[-1])
        )
        assert row.rate == pytest.approx(work / row.seconds_median)
        assert row.unit == ("GFLOP/s" if "product" in row.task else "pictures/s")


def test_bfloat16_training_is_a_contender_where_the_cpu_gains_from_it(artifact_path, monkeypatch):
    monkeypatch.setattr(
        accelerator, "autocast_dtype", lambda d: torch.bfloat16 if d.type == "cpu" else None
    )
    result = run(artifact_path, device="cpu", sizes=(5,), batches=(1,), repeats=1)
    steps = [row.contender for row in result.rows if row.task.startswith("training")]
    assert steps == [CPU, "PyTorch bfloat16, CPU"]
    assert "left out" not in result.table()


def test_result_survives_json_with_its_speedups(measured):
    content = json.loads(json.dumps(measured.to_dict()))
    assert content["rows"] == [dataclasses.asdict(row) for row in measured.rows]
    assert content["accelerator"] == "Example GPU"
    assert content["threads"] == 2
    assert content["hardware"] == hardware()
    assert content["versions"] == versions()
    assert content["speedups"] == measured.speedups()


def test_speedup_is_the_baselines_time_over_the_contenders(measured):
    assert [(row["contender"], row["speedup"]) for row in measured.speedups()] == [
        ("PyTorch, cuda", 0.5),
        (ONNX, 2.0),
        ("PyTorch, cuda", 4.0),
    ]
    assert {row["baseline"] for row in measured.speedups()} == {CPU}


def test_speedups_can_be_drawn(measured):
    from inkdigits.evaluation.plots import speedup_chart

    axes = speedup_chart(measured.speedups()).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"reading digits, batch 1\nPyTorch, cuda against {CPU}",
        f"reading digits, batch 1\n{ONNX} against {CPU}",
        f"matrix product, 10 x 10\nPyTorch, cuda against {CPU}",
    ]


def test_table_names_task_once_scales_times_and_aligns_columns(measured):
    lines = measured.table().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("task"))
    table = lines[head : head + 7]
    assert len({len(line) for line in table}) == 1
    assert table[2].startswith("reading digits, batch 1")
    assert table[3].startswith(" " * 23)
    assert table[2].split()[-10:] == [
        "200",
        "µs",
        "100",
        "to",
        "300",
        "µs",
        "5,000",
        "pictures/s",
        "1",
        "x",
    ]
    assert table[4].endswith("2 x")
    assert "2 s" in table[5]
    assert "1.5 to 2.5 s" in table[5]
    assert lines[-1] == "A note."
    assert "Accelerator: Example GPU" in lines


def test_contenders_that_answer_differently_are_not_timed(artifact_path, monkeypatch):
    class Wrong(accelerator.OnnxBackend):
        def logits(self, batch):
            return super().logits(batch) + np.float32(0.01)

    monkeypatch.setattr(accelerator, "OnnxBackend", Wrong)
    with pytest.raises(InkdigitsError, match=r"ONNX Runtime, CPU and PyTorch, CPU differ by 0\.01"):
        run(artifact_path)


def test_contender_that_answers_nan_is_not_timed(artifact_path, monkeypatch):
    class Broken(accelerator.OnnxBackend):
        def logits(self, batch):
            return super().logits(batch) * np.float32("nan")

    monkeypatch.setattr(accelerator, "OnnxBackend", Broken)
    with pytest.raises(InkdigitsError, match="differ by nan"):
        run(artifact_path)


def test_contenders_take_turns_after_a_warm_up_of_their_own(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    log = []
    samples = timing.race(
        {"a": lambda: log.append("a"), "b": lambda: log.append("b")},
        3,
        lambda: log.append("wait"),
    )
    turn = ["wait", "a", "wait", "wait", "b", "wait"]
    alone = [["wait", name, "wait"] * 2 for name in "ab"]  # one call warms up, one is counted
    assert log == [*alone[0], *alone[1], *turn * 3]
    assert samples == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_quick_calls_are_repeated_until_a_sample_is_long_enough(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.05)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    calls = []

    def call():
        calls.append(now[0])
        now[0] += 0.001

    samples = timing.race({"a": call}, 2)
    # Two samples of 50 calls at least, after the warm-up and the search for how many.
    assert len(calls) >= 100
    assert now[0] == pytest.approx(0.001 * len(calls))
    assert samples["a"] == pytest.approx([0.001, 0.001])


@pytest.mark.parametrize(
    "options", [{"sizes": (0,)}, {"sizes": ()}, {"batches": (4, -1)}, {"repeats": 0}]
)
def test_sizes_below_one_are_refused(artifact_path, options):
    with pytest.raises(ConfigError, match="must be 1 or more"):
        run(artifact_path, **options)


def test_missing_model_is_refused_before_anything_is_timed(tmp_path, monkeypatch):
    monkeypatch.delattr(accelerator, "_matrix_product")
    with pytest.raises(ArtifactNotFoundError, match=r"none\.onnx"):
        run(tmp_path / "none.onnx")


def test_absent_accelerator_that_was_asked_for_is_an_error(artifact_path, on_a_mere_cpu):
    with pytest.raises(BackendUnavailableError, match="cuda"):
        run(artifact_path, device="cuda")
