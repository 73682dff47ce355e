import json
from dataclasses import replace

import numpy as np
import pytest
from support.commands import run
from support.readings import noisy_logits

import inkdigits
from inkdigits.calibration.temperature import probabilities
from inkdigits.data.labelled import Example, LabelledInks
from inkdigits.decision.policy import energy
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.errors import NoThresholdError
from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import read_artifact, read_metadata
from inkdigits.training.recalibrate import fit_readings, recalibrate, support
from inkdigits.types import NO_DIGIT

KNOWN = read_metadata(read_artifact())


def labelled(inks, labels):
    examples = [Example(f"{n}.png", "own", ink, int(labels[n])) for n, ink in enumerate(inks)]
    certain = np.ones(len(inks), bool)
    return LabelledInks(inks, np.asarray(labels, dtype=np.int64), examples, [], certain)


def test_artifact_gets_the_calibration_of_the_pictures_and_keeps_its_network(digits):
    inks, labels = digits
    lines = []
    made, metadata = recalibrate(
        read_artifact(), labelled(inks, labels), risk=0.02, report=lines.append
    )
    policy, provenance = metadata.policy, metadata.provenance
    assert policy.risk == provenance["config"]["risk"] == 0.02
    assert policy.choice(0.02).threshold == policy.accept_threshold
    assert metadata.model_version == read_metadata(made).model_version != KNOWN.model_version
    assert provenance["test"]["accuracy"] == KNOWN.provenance["test"]["accuracy"]
    assert provenance["data"] == KNOWN.provenance["data"]
    told = provenance["calibration_data"]
    assert (told["n"], told["sources"], told["model_version"]) == (
        *(len(inks), ["own"]),
        KNOWN.model_version,
    )
    assert provenance["drift_reference"]["n"] == len(inks)
    # Eighteen hundred digits are enough for both; the temperature's figures are of the former one.
    assert metadata.temperature != KNOWN.temperature == provenance["test"]["temperature"]
    assert policy.novelty_threshold != KNOWN.policy.novelty_threshold
    assert any("support" in line for line in lines)


def test_what_too_few_pictures_cannot_tell_stays_and_is_said(digits):
    inks, labels = digits
    few = labelled(inks[:150], labels[:150])
    lines = []
    _, metadata = recalibrate(read_artifact(), few, risk=0.1, report=lines.append)
    assert metadata.temperature == KNOWN.temperature
    assert metadata.policy.novelty_threshold == KNOWN.policy.novelty_threshold
    assert "too few to fit it" in lines[0]
    assert "digits are too few" in lines[1]
    with pytest.raises(NoThresholdError, match=r"do not support a risk of 0\.1 %.*needs 2,995"):
        recalibrate(read_artifact(), few)


def test_pictures_without_a_digit_count_as_wrong_where_they_are_accepted():
    logits, labels = 30 * np.eye(10, dtype=np.float32)[[3] * 400], np.full(400, 3)
    assert fit_readings(logits, labels, KNOWN, risk=0.05).chosen.n_wrong == 0
    labels[:5] = NO_DIGIT
    assert fit_readings(logits, labels, KNOWN, risk=0.05).chosen.n_wrong == 5
    labels[:] = NO_DIGIT
    with pytest.raises(NoThresholdError, match="support no risk"):
        fit_readings(logits, labels, KNOWN, risk=0.05)


def test_ink_that_is_not_certain_is_not_accepted():
    logits, labels = 30 * np.eye(10, dtype=np.float32)[[3] * 800], np.full(800, 3)
    certain = np.arange(800) % 2 == 0
    assert fit_readings(logits, labels, KNOWN, certain=certain, risk=0.05).chosen.n_accepted == 400


def test_known_writers_bound_the_risk_too():
    logits, labels = 30 * np.eye(10, dtype=np.float32)[[3] * 2000], np.full(2000, 3)
    labels[:8] = 5
    one_hand = np.r_[np.zeros(20), np.arange(1, 1981)]  # all mistakes are of one writer
    assert fit_readings(logits, labels, KNOWN, risk=0.01).chosen.n_wrong == 8
    with pytest.raises(NoThresholdError, match="State --risk"):
        fit_readings(logits, labels, KNOWN, writers=one_hand, risk=0.01)


def test_writers_of_a_source_are_those_of_the_calibration(digits):
    inks, labels = digits
    pictures = labelled(inks, labels)
    examples = [replace(one, writer=f"w{n % 90}") for n, one in enumerate(pictures.examples)]
    lines = []
    _, metadata = recalibrate(
        read_artifact(), replace(pictures, examples=examples), risk=0.02, report=lines.append
    )
    assert metadata.provenance["calibration_data"]["writers"] == 90
    assert lines[0].startswith("the bound over 90 writers")


def test_support_says_what_so_many_readings_support():
    def of(n, wrong, risk):
        return support(AcceptThreshold(0.5, risk, 0.95, 1.0, n, n, wrong), 0.001)

    assert of(3000, 0, 0.001) == "0 of 3,000 accepted are wrong, which supports a risk of 0.1 %"
    assert of(900, 1, 0.0053).endswith("supports a risk of 0.53 %; 0.1 % needs 4,742")


def test_command_writes_a_version_or_nothing(digits, tmp_path):
    inks, labels = digits
    for number, (ink, label) in enumerate(zip(inks[:150], labels, strict=False)):
        path = tmp_path / "own" / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(255 - ink))
    arguments = ("calibrate", "--data", tmp_path / "own", "--out", tmp_path / "models" / "mine")
    assert "State --risk 0.0" in run(*arguments, exit_code=1).stderr
    assert not (tmp_path / "models").exists()
    done = run(*arguments, "--risk", 0.1)
    version = inkdigits.load(tmp_path / "models" / "mine").model_version
    assert version in done.stdout
    saved = json.loads((tmp_path / "models" / "mine" / "run.json").read_text())
    assert (saved["model_version"], saved["policy"]["risk"]) == (version, 0.1)
    assert "name another folder" in run(*arguments, "--risk", 0.2, exit_code=2).stderr
    assert inkdigits.load(tmp_path / "models" / "mine").model_version == version
    elsewhere = (*arguments[:-1], tmp_path / "own" / "7" / "7.png" / "mine", "--risk", 0.1)
    (tmp_path / "own" / "7" / "7.png").touch()
    assert "read or written: Not a directory" in run(*elsewhere, exit_code=1).stderr
    assert "name the labelled pictures" in run("calibrate", "--out", tmp_path, exit_code=2).stderr


def test_command_finds_ink_as_the_model_does_that_it_calibrates(tmp_path, monkeypatch):
    (tmp_path / "own" / "7").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(90, 200, (60, 60), dtype=np.uint8)
    (tmp_path / "own" / "7" / "a.png").write_bytes(encode_png(noise))

    def finds_nothing(view):
        return np.full((1, 2, *view.shape[2:]), -20, np.float32)

    backends = "inkdigits.model.backends"
    monkeypatch.setattr(f"{backends}.onnx_function", lambda *_, **__: finds_nothing)
    done = run("calibrate", "--data", tmp_path / "own", "--out", tmp_path / "mine", exit_code=1)
    assert "no ink was found" in done.stderr


@pytest.mark.slow
def test_stated_risk_is_kept_as_often_as_it_is_promised():
    """A log of 5,000 readings, 1,000 times: the true risk is over the stated one in at most 5 %."""
    risk, repeats, rng = 0.005, 1000, np.random.default_rng(20261128)
    # Readings whose chance of being right is known; the network is overconfident by a fifth.
    logits, _ = noisy_logits(10_000)
    logits = 4 * logits
    chance = probabilities(logits, 1.0)
    read, served = logits.argmax(axis=1), (1.2 * logits).astype(np.float32)
    right = chance[np.arange(len(read)), read]
    scores, broken = energy(served), 0
    for _ in range(repeats):
        drawn = rng.integers(len(read), size=5000)
        labels = (logits[drawn] + rng.gumbel(size=(5000, 10))).argmax(axis=1)
        fitted = fit_readings(served[drawn], labels, KNOWN, risk=risk)
        confidence = probabilities(served, fitted.temperature).max(axis=1)
        confidence[scores > fitted.policy.novelty_threshold] = 0
        accepted = confidence >= fitted.policy.accept_threshold
        broken += (1 - right[accepted]).mean() > risk
    # Three standard deviations of a binomial with 5 %.
    assert broken <= repeats * 0.05 + 3 * np.sqrt(repeats * 0.05 * 0.95)
