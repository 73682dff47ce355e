import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss
from support.readings import noisy_logits, random_readings

from inkdigits.calibration import scores as scoring
from inkdigits.calibration.intervals import bootstrap_interval
from inkdigits.calibration.temperature import probabilities as softmax
from inkdigits.errors import DataError

ONE_HOT = np.eye(10)


def with_confidence(confidence):
    """Rows that read 0 with the given confidence, the rest spread evenly."""
    confidence = np.asarray(confidence, dtype=float)[:, None]
    return np.hstack([confidence, np.repeat((1 - confidence) / 9, 9, axis=1)])


def test_losses_agree_with_scikit_learn():
    p, y = random_readings()
    assert scoring.nll(p, y) == pytest.approx(log_loss(y, p, labels=range(10)))
    theirs = brier_score_loss(y, p, labels=range(10), scale_by_half=False)
    assert scoring.brier(p, y) == pytest.approx(theirs)
    # A certain mistake costs much, but not infinity.
    assert scoring.nll(ONE_HOT[[3]], np.array([4])) == pytest.approx(708.396, abs=1e-3)


def brute_force_ece(p, y, bins):
    """The definition; ``bins`` maps a picture to its bin."""
    right, confidence = p.argmax(axis=1) == y, p.max(axis=1)
    members = [bins == b for b in np.unique(bins)]
    return sum(m.mean() * abs(right[m].mean() - confidence[m].mean()) for m in members)


BINS = {
    False: lambda p: np.ceil(p.max(axis=1) * 15),
    # A picture of rank r is in the first bin k with r < ceil(n k / 15).
    True: lambda p: np.searchsorted(
        -(-len(p) * np.arange(1, 16) // 15), p.max(axis=1).argsort().argsort(), side="right"
    ),
}


@pytest.mark.parametrize("adaptive", BINS)
@pytest.mark.parametrize("n", [300, 307])
def test_ece_agrees_with_its_definition(adaptive, n):
    p, y = random_readings(n)
    expected = brute_force_ece(p, y, BINS[adaptive](p))
    assert scoring.reliability_curve(p, y, adaptive=adaptive).ece == pytest.approx(expected)


@pytest.mark.parametrize("adaptive", BINS)
def test_neither_the_order_of_equal_confidences_nor_fewer_pictures_than_bins_matter(adaptive):
    p = with_confidence(np.round(np.random.default_rng(0).uniform(0.2, 1, 200), 1))
    y = np.arange(200) % 3
    order = np.random.default_rng(1).permutation(200)
    first, other = (
        scoring.reliability_curve(p[o], y[o], adaptive=adaptive).ece for o in (slice(None), order)
    )
    assert other == pytest.approx(first)
    few = with_confidence([0.9, 0.6]), np.array([0, 1])
    assert scoring.reliability_curve(*few, adaptive=adaptive).ece == pytest.approx(0.35)


def test_a_bin_edge_belongs_to_the_bin_below_and_float32_may_sum_to_a_little_over_1():
    curve = scoring.reliability_curve(with_confidence([0.2, 0.21, 1.0]), np.zeros(3, int))
    bins = [curve.count.tolist(), *(15 * edges for edges in (curve.lower, curve.upper))]
    assert bins[0] == [1, 1, 1]
    np.testing.assert_allclose(bins[1:], [[2, 3, 14], [3, 4, 15]])
    over = ONE_HOT[[3]].astype(np.float32) * np.float32(1.0000001)
    assert scoring.reliability_curve(over, np.array([3])).count.tolist() == [1]


def test_bins_without_pictures_are_left_out():
    curve = scoring.reliability_curve(with_confidence([0.95, 0.45]), np.array([0, 1]))
    assert curve.count.tolist() == [1, 1]
    np.testing.assert_allclose(curve.confidence, [0.45, 0.95])
    assert (curve.accuracy.tolist(), curve.n) == ([0, 1], 2)
    assert curve.ece == pytest.approx((0.45 + 0.05) / 2)


@pytest.mark.parametrize(
    ("p", "y", "problem"),
    [
        (np.empty((0, 10)), np.empty(0, dtype=int), "shape"),
        (np.full((2, 10), 0.2), [0, 1], "sum to 1"),
        (ONE_HOT[[1, 2]] * [[1.5]] - 0.05, [1, 2], "negative"),
        (np.full((1, 10), np.nan), [1], "finite"),
        (ONE_HOT[[1, 2]], [1], "labels must be"),
    ],
)
def test_invalid_probabilities_are_errors(p, y, problem):
    with pytest.raises(DataError, match=problem):
        scoring.score_probabilities(p, y)


def test_scores_are_the_metrics_with_their_intervals():
    p, y = random_readings(200)
    scores = scoring.score_probabilities(p, y)
    assert scores.nll.value == scoring.nll(p, y)
    assert scores.ece_adaptive.value == scoring.reliability_curve(p, y, adaptive=True).ece
    assert (scores.brier.low, scores.brier.high) == bootstrap_interval(scoring.brier, p, y)
    assert scores.ece.low < scores.ece.high


def test_calibrating_lowers_the_loss_and_the_ece_and_keeps_every_reading():
    logits, labels = noisy_logits(scale=3.0)
    report = scoring.calibrate(logits, labels)
    after = softmax(logits, report.temperature)
    np.testing.assert_array_equal(after.argmax(axis=1), logits.argmax(axis=1))
    accuracy = np.mean(logits.argmax(axis=1) == labels)
    assert (report.n, report.accuracy_before, report.accuracy_after) == (2000, accuracy, accuracy)
    for name, share in {"nll": 1, "brier": 1, "ece": 0.3, "ece_adaptive": 0.3}.items():
        before, after = (getattr(part, name).value for part in (report.before, report.after))
        assert after < share * before
    # Apart by one rounding step of the softmax; a third of that is lost, and the reading changes.
    logits[0] = [-1.1e-16, 0, *[-9] * 8]
    with pytest.raises(DataError, match="tie"):
        scoring.calibrate(logits, labels)
