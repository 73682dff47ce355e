import numpy as np
import pytest
import torch

from inkdigits import errors
from inkdigits.decision.policy import DecisionPolicy
from inkdigits.evaluation import speed, timing
from inkdigits.model.networks import MNISTClassifier
from inkdigits.training.export import export

pytestmark = pytest.mark.heavy

CPU, ONNX = "PyTorch, CPU", "ONNX Runtime, CPU"


@pytest.fixture(scope="module")
def artifact_path(tmp_path_factory):
    torch.manual_seed(0)
    content = export(MNISTClassifier().state_dict(), 1.0, DecisionPolicy(None, 0.01, 0.95), {})
    path = tmp_path_factory.mktemp("artifact") / "model.onnx"
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(speed, "TRAINING_BATCH", 4)


@pytest.fixture
def on_a_mere_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(speed, "autocast_dtype", lambda device: None)


def run(artifact_path, sizes=(20,), batches=(1, 3), repeats=2, **options):
    options["artifact_path"] = artifact_path
    return speed.run_benchmark(sizes=sizes, batches=batches, repeats=repeats, **options)


def test_without_an_accelerator_the_cpu_contenders_compare_and_the_table_says_so(
    artifact_path, on_a_mere_cpu
):
    told = []
    result = run(artifact_path, progress=told.append)
    assert result.accelerator is None
    assert [(row.task, row.contender, row.unit) for row in result.rows] == [
        ("matrix product, 20 x 20", CPU, "GFLOP/s"),
        ("reading digits, batch 1", CPU, "pictures/s"),
        ("reading digits, batch 1", ONNX, "pictures/s"),
        ("reading digits, batch 3", CPU, "pictures/s"),
        ("reading digits, batch 3", ONNX, "pictures/s"),
        ("training step, batch 4", CPU, "pictures/s"),
    ]
    for row, work in zip(result.rows, (2 * 20**3 / 1e9, 1, 1, 3, 3, 4), strict=True):
        assert row.rate == pytest.approx(work / row.seconds_median)
    assert told == list(dict.fromkeys(row.task for row in result.rows))
    table = result.table()
    assert "Accelerator: none" in table
    assert "There is no accelerator here: PyTorch finds neither an NVIDIA GPU (cuda)" in table
    assert "Training in bfloat16 on the CPU is left out" in table
    assert [(row["task"], row["contender"]) for row in result.speedups()] == [
        ("reading digits, batch 1", ONNX),
        ("reading digits, batch 3", ONNX),
    ]


def test_bfloat16_training_is_a_contender_where_the_cpu_gains_from_it(artifact_path, monkeypatch):
    monkeypatch.setattr(speed, "autocast_dtype", lambda d: torch.bfloat16)
    result = run(artifact_path, device="cpu", sizes=(5,), batches=(1,), repeats=1)
    steps = [row.contender for row in result.rows if row.task.startswith("training")]
    assert steps == [CPU, "PyTorch bfloat16, CPU"]
    assert "left out" not in result.table()
    # Asking for the CPU is not mistaken for a machine without an accelerator.
    assert "only the CPU was asked for" in result.table()


@pytest.mark.parametrize("added", [0.01, np.nan])
def test_contenders_that_answer_differently_are_not_timed(artifact_path, monkeypatch, added):
    message = f"ONNX Runtime, CPU and .* differ by {added}"

    class Wrong(speed.OnnxBackend):
        def logits(self, batch):
            return super().logits(batch) + np.float32(added)

    monkeypatch.setattr(speed, "OnnxBackend", Wrong)
    with pytest.raises(errors.InkdigitsError, match=message):
        run(artifact_path)


def test_missing_model_or_accelerator_is_an_error_before_anything_is_timed(
    artifact_path, tmp_path, monkeypatch, on_a_mere_cpu
):
    monkeypatch.delattr(speed, "time_in_turns")
    with pytest.raises(errors.ArtifactNotFoundError, match=r"none\.onnx"):
        run(tmp_path / "none.onnx")
    with pytest.raises(errors.BackendUnavailableError, match="cuda"):
        run(artifact_path, device="cuda")
