import sys
import types

import pytest

from inkdigits.errors import BackendUnavailableError
from inkdigits.training.config import Folders
from inkdigits.training.tracking import log_with_mlflow


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
