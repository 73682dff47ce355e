from dataclasses import replace

import pytest
import torch
from support.training import CONFIG, ONE_EPOCH, fit_here

from inkdigits.errors import TrainingError
from inkdigits.training import checkpoint as checkpoint_module
from inkdigits.training.checkpoint import Epoch, TrainingState, weights_digest
from inkdigits.training.fit import FitInputs


@pytest.fixture(scope="module")
def finished(few, tmp_path_factory):
    """The checkpoint of a run of one epoch, and its result."""
    path = tmp_path_factory.mktemp("finished") / "checkpoint.pt"
    return path, fit_here(few, ONE_EPOCH, checkpoint=path)


@pytest.mark.parametrize(("keep", "kept_epoch"), [("best", 2), ("last", 3)])
def test_the_lowest_loss_or_the_last_epoch_is_kept(keep, kept_epoch):
    state = TrainingState(replace(CONFIG, keep=keep), 1, torch.device("cpu"), {}, None)
    weights = []
    for epoch, loss in enumerate((0.3, 0.1, 0.2), start=1):
        for parameter in state.evaluated.parameters():
            torch.nn.init.constant_(parameter, epoch)
        state.add(Epoch(epoch, 0.5, loss, 0.9, 1e-3, 1.0))
        weights.append(state.weights())
    assert state.kept_epoch == kept_epoch
    assert torch.equal(state.kept_weights["fc2.weight"], weights[kept_epoch - 1]["fc2.weight"])


def test_resumed_run_ends_with_the_same_weights_bit_for_bit(few, tmp_path, monkeypatch):
    whole = fit_here(few, CONFIG)
    checkpoint = tmp_path / "checkpoint.pt"

    save = TrainingState.save

    def interrupt(state, path):
        save(state, path)
        if len(state.history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingState, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit_here(few, CONFIG, checkpoint=checkpoint)
    monkeypatch.setattr(checkpoint_module, "hardware", lambda: {"cpu": "another"})
    resumed = fit_here(few, CONFIG, checkpoint=checkpoint, resume=True)
    assert [m["hardware"]["cpu"] == "another" for m in resumed.machines] == [False, True]
    assert [e.epoch for e in resumed.history] == [1, 2, 3]
    assert resumed.kept_epoch == whole.kept_epoch
    for name, value in whole.weights.items():
        assert torch.equal(resumed.weights[name], value), name


def test_finished_run_resumes_to_its_results_from_a_file_without_the_rest(
    few, finished, monkeypatch
):
    path, first = finished
    # Little more than the weights: an optimiser and an average would be four times as much.
    assert path.stat().st_size < 1.2 * sum(w.nbytes for w in first.weights.values())
    monkeypatch.setattr(checkpoint_module, "hardware", lambda: {"cpu": "another"})
    again = fit_here(few, ONE_EPOCH, checkpoint=path, resume=True)
    other = {**first.weights, "fc2.bias": torch.zeros(10)}
    digests = [weights_digest(weights) for weights in (again.weights, first.weights, other)]
    assert digests[0] == digests[1] != digests[2]
    assert (again.history, again.machines) == (first.history, first.machines)


def test_resuming_with_other_settings_or_data_names_the_difference(few, finished):
    path, _ = finished
    other = replace(ONE_EPOCH, learning_rate=1e-3)
    with pytest.raises(TrainingError, match=r"config.learning_rate \(0.003 there, 0.001 here\)"):
        fit_here(few, other, checkpoint=path, resume=True)
    fewer = FitInputs(few.train[torch.arange(500)], few.validation)
    with pytest.raises(TrainingError, match="train"):
        fit_here(fewer, ONE_EPOCH, checkpoint=path, resume=True)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_resuming_from_nothing_or_garbage_is_an_error(few, tmp_path, content):
    checkpoint = tmp_path / "checkpoint.pt"
    if content is not None:
        checkpoint.write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        fit_here(few, CONFIG, checkpoint=checkpoint, resume=True)
