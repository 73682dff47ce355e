import json

import numpy as np
import pytest
from sklearn import metrics

from inkdigits.calibration.intervals import wilson_interval
from inkdigits.calibration.temperature import probabilities as softmax
from inkdigits.evaluation.metrics import classification_report, evaluate


def readings():
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(10, size=1000), rng.normal(0, 2, (1000, 10))
    logits[np.arange(1000), labels] += 5
    return softmax(logits, 1.0), labels


RARE = np.random.default_rng(3)
P, Y = readings()


@pytest.mark.parametrize(
    ("y", "predicted"),
    [
        (Y, P.argmax(axis=1)),
        # No picture of a 7, and no prediction of an 8.
        (RARE.choice([*range(7), 8, 9], 200), RARE.choice([*range(8), 9], 200)),
    ],
)
def test_confusion_matrix_and_classification_report_agree_with_scikit_learn(y, predicted):
    got = evaluate(np.eye(10)[predicted], y)
    np.testing.assert_array_equal(
        got.confusion, metrics.confusion_matrix(y, predicted, labels=range(10))
    )
    report = classification_report(got.confusion)
    theirs = metrics.classification_report(
        y, predicted, labels=range(10), output_dict=True, zero_division=0
    )
    rows = [(str(digit), scores) for digit, scores in enumerate(report["digits"])]
    for name, scores in [
        *rows,
        ("macro avg", report["macro"]),
        ("weighted avg", report["weighted"]),
    ]:
        expected = [theirs[name][k] for k in ("precision", "recall", "f1-score", "support")]
        assert list(scores.values()) == pytest.approx(expected)


def test_evaluation_counts_what_was_read_right_and_survives_json():
    p, y = P, Y
    got = evaluate(p, y)
    assert (got.n, got.n_correct) == (1000, np.sum(p.argmax(axis=1) == y))
    assert got.accuracy.value == metrics.accuracy_score(y, p.argmax(axis=1))
    assert (got.accuracy.low, got.accuracy.high) == wilson_interval(got.n_correct, 1000)
    assert got.scores.nll.value == pytest.approx(metrics.log_loss(y, p))
    assert np.trace(got.confusion) == got.n_correct
    read = json.loads(json.dumps(got.to_dict(), allow_nan=False))
    assert read["accuracy"]["value"] == got.accuracy.value
    assert read["ece_adaptive"]["low"] == got.scores.ece_adaptive.low
    assert read["confusion_matrix"] == got.confusion.tolist()
    assert read["classification_report"]["digits"][3]["support"] == (y == 3).sum()
    assert (read["n"], read["misread"]) == (1000, got.misread.tolist())


def test_the_most_confident_mistake_comes_first():
    read, confidence = np.array([1, 2, 3, 4]), np.array([0.6, 0.9, 0.95, 0.7])[:, None]
    p = np.where(np.arange(10) == read[:, None], confidence, (1 - confidence) / 9)
    got = evaluate(p, [0, 0, 3, 0])
    assert (got.misread.tolist(), got.misread.dtype) == ([1, 3, 0], np.int64)


def test_the_summary_says_accuracy_with_its_numbers_and_interval():
    y = np.arange(10_000) % 10
    p = np.full((10_000, 10), 0.01 / 9)
    p[np.arange(10_000), np.where(np.arange(10_000) < 30, (y + 1) % 10, y)] = 0.99
    lines = evaluate(p, y).summary().splitlines()
    interval = "99.57\N{EN DASH}99.79 %"
    assert lines[0] == f"accuracy       99.70 % (9,970 of 10,000; 95 % interval {interval})"
    assert lines[1].startswith("ECE            0.70 % (95 % interval ")
    names = ["accuracy", "ECE", "ECE, adaptive", "NLL", "Brier score"]
    assert [line.split("  ")[0] for line in lines] == names
