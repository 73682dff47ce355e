import dataclasses
import json

import pytest

from inkdigits.evaluation import timing
from inkdigits.evaluation.environment import hardware, versions
from inkdigits.evaluation.timing import BenchmarkResult, Row, time_in_turns

CPU, ONNX = "PyTorch, CPU", "ONNX Runtime, CPU"


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


def test_result_survives_json_with_its_speedups(measured):
    content = json.loads(json.dumps(measured.to_dict()))
    assert content["rows"] == [dataclasses.asdict(row) for row in measured.rows]
    assert (content["accelerator"], content["threads"]) == ("Example GPU", 2)
    assert (content["hardware"], content["versions"]) == (hardware(), versions())
    # The baseline's time over the contender's.
    found = [(row["contender"], row["speedup"]) for row in content["speedups"]]
    assert found == [("PyTorch, cuda", 0.5), (ONNX, 2.0), ("PyTorch, cuda", 4.0)]
    assert {row["baseline"] for row in content["speedups"]} == {CPU}


def test_table_names_task_once_scales_times_and_aligns_columns(measured):
    lines = measured.table().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("task"))
    table = lines[head : head + 6]
    assert len({len(line) for line in table}) == 1
    assert table[1].startswith("reading digits, batch 1")
    assert table[2].startswith(" " * 23)
    assert " ".join(table[1].split()[-10:]) == "200 µs 100 to 300 µs 5,000 pictures/s 1 x"
    assert table[3].endswith("2 x")
    assert "2 s" in table[4]
    assert "1.5 to 2.5 s" in table[4]
    assert lines[-1] == "A note."
    assert "Accelerator: Example GPU" in lines


def test_contenders_take_turns_after_a_warm_up_of_their_own(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    log = []
    calls = {name: lambda name=name: log.append(name) for name in "ab"}
    samples = time_in_turns(calls, 3, lambda: log.append("wait"))
    alone = [["wait", name, "wait"] * 2 for name in "ab"]  # one call warms up, one is counted
    assert log == [*alone[0], *alone[1], *["wait", "a", "wait", "wait", "b", "wait"] * 3]
    assert samples == {"a": [1.0] * 3, "b": [1.0] * 3}
