import sys
import types

import pytest
import torch

from inkdigits.errors import BackendUnavailableError, TrainingError
from inkdigits.training.config import Folders
from inkdigits.training.run_folder import (
    log_with_mlflow,
    read_json,
    read_weights,
    save_weights,
)


def test_weights_of_another_network_or_of_none_are_errors(fitted, tmp_path):
    path = tmp_path / "weights.pt"
    save_weights(fitted.weights, path)
    assert read_weights(path, "MNISTClassifier").keys() == fitted.weights.keys()
    with pytest.raises(TrainingError, match="are MNISTClassifier's, not DigitNet's"):
        read_weights(path, "DigitNet")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "foreign.pt")
    (tmp_path / "damaged.pt").write_bytes(b"damaged")
    for name in ("foreign.pt", "damaged.pt"):
        with pytest.raises(TrainingError, match=f"{name} cannot be used"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(("content", "message"), [("[1]", "holds no JSON object"), ("{", "read")])
def test_json_file_that_holds_no_object_is_an_error(content, message, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=message):
        read_json(tmp_path / "run.json")


def test_finished_run_is_logged_with_mlflow(tmp_path, monkeypatch):
    calls = []

    class Run:
        __enter__ = __exit__ = lambda *_: None

    def note(name):
        return lambda *given, **named: calls.append((name, given, named)) or Run()

    names = ("start_run", "log_params", "set_tag", "log_metrics")
    fake = types.ModuleType("mlflow")
    for name in (*names, "log_artifact", "log_artifacts"):
        setattr(fake, name, note(name))
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    described = {
        "model_version": "version-1",
        "config": {"epochs": 1, "augmentation": {"shift": 2}},
        "history": [{"epoch": 1, "train_loss": 0.3}],
        "test": dict.fromkeys(("accuracy", "nll", "brier", "ece"), estimate),
    }
    log_with_mlflow(described, Folders(tmp_path, tmp_path / "figures", tmp_path))
    assert calls[0] == ("start_run", (), {"run_name": "version-1"})
    assert ("log_metrics", ({"train_loss": 0.3},), {"step": 1}) in calls
    assert ("log_params", ({"epochs": 1, "augmentation.shift": 2},), {}) in calls
    assert (
        "log_metrics",
        (dict.fromkeys(("test_accuracy", "test_nll", "test_brier", "test_ece"), 0.5),),
        {},
    ) in calls
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(BackendUnavailableError, match="needs mlflow"):
        log_with_mlflow(described, Folders(tmp_path, tmp_path, tmp_path))
