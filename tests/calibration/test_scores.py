import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss
from support.readings import noisy_logits, random_readings

from inkdigits.calibration import scores as scoring
from inkdigits.calibration.intervals import bootstrap_interval
from inkdigits.calibration.temperature import probabilities as softmax
from inkdigits.errors import ConfigError, DataError

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
    assert scoring.nll(ONE_HOT[[3]], [4]) == pytest.approx(708.396, abs=1e-3)


def brute_force_ece(p, y, bins):
    """The definition; ``bins`` maps a picture to its bin."""
    right, confidence = p.argmax(axis=1) == y, p.max(axis=1)
    members = [bins == b for b in np.unique(bins)]
    return sum(m.mean() * abs(right[m].mean() - confidence[m].mean()) for m in members)


BINS = {
    "equal_width": lambda p, n_bins: np.ceil(p.max(axis=1) * n_bins),
    # A picture of rank r is in the first bin k with r < ceil(n k / n_bins).
    "adaptive": lambda p, n_bins: np.searchsorted(
        -(-len(p) * np.arange(1, n_bins + 1) // n_bins),
        p.max(axis=1).argsort().argsort(),
        side="right",
    ),
}


@pytest.mark.parametrize("scheme", BINS)
@pytest.mark.parametrize(("n", "n_bins"), [(300, 1), (300, 10), (300, 15), (307, 15)])
def test_ece_agrees_with_its_definition(scheme, n, n_bins):
    p, y = random_readings(n)
    expected = brute_force_ece(p, y, BINS[scheme](p, n_bins))
    got = scoring.expected_calibration_error(p, y, n_bins, scheme)
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("scheme", ["equal_width", "adaptive"])
def test_neither_the_order_of_equal_confidences_nor_fewer_pictures_than_bins_matter(scheme):
    p = with_confidence(np.round(np.random.default_rng(0).uniform(0.2, 1, 200), 1))
    y = np.arange(200) % 3
    order = np.random.default_rng(1).permutation(200)
    first, other = (
        scoring.expected_calibration_error(p[o], y[o], scheme=scheme) for o in (slice(None), order)
    )
    assert other == pytest.approx(first)
    few = scoring.expected_calibration_error(with_confidence([0.9, 0.6]), [0, 1], scheme=scheme)
    assert few == pytest.approx((0.1 + 0.6) / 2)


def test_a_bin_edge_belongs_to_the_bin_below_and_float32_may_sum_to_a_little_over_1():
    curve = scoring.reliability_curve(with_confidence([0.5, 0.51, 1.0]), [0, 0, 0], n_bins=2)
    bins = (curve.count.tolist(), curve.lower.tolist(), curve.upper.tolist())
    assert bins == ([1, 2], [0.0, 0.5], [0.5, 1.0])
    over = ONE_HOT[[3]].astype(np.float32) * np.float32(1.0000001)
    assert scoring.reliability_curve(over, [3]).count.tolist() == [1]


def test_bins_without_pictures_are_left_out():
    curve = scoring.reliability_curve(with_confidence([0.95, 0.45]), [0, 1], n_bins=10)
    assert curve.count.tolist() == [1, 1]
    np.testing.assert_allclose(curve.confidence, [0.45, 0.95])
    assert (curve.accuracy.tolist(), curve.n) == ([0, 1], 2)
    assert curve.ece == pytest.approx((0.45 + 0.05) / 2)


@pytest.mark.parametrize(
    ("p", "y", "problem"),
    [
        (np.empty((0, 10)), np.empty(0, dtype=int), "empty"),
        (np.full((2, 10), 0.2), [0, 1], "sum to 1"),
        (ONE_HOT[[1, 2]] * [[1.5]] - 0.05, [1, 2], "negative"),
        (np.full((1, 10), np.nan), [1], "finite"),
        (ONE_HOT[[1, 2]], [1], "shape"),
    ],
)
def test_invalid_probabilities_are_errors(p, y, problem):
    for metric in (scoring.nll, scoring.brier, scoring.expected_calibration_error):
        with pytest.raises(DataError, match=problem):
            metric(p, y)


@pytest.mark.parametrize("settings", [{"scheme": "quantile"}, {"n_bins": 0}])
def test_unknown_settings_are_errors(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        scoring.reliability_curve(*random_readings(10), **settings)


def test_scores_are_the_metrics_with_their_intervals():
    p, y = random_readings(200)
    scores = scoring.score_probabilities(p, y, n_resamples=50, level=0.9, seed=3)
    assert scores.nll.value == scoring.nll(p, y)
    assert scores.ece_adaptive.value == scoring.expected_calibration_error(p, y, scheme="adaptive")
    interval = bootstrap_interval(scoring.brier, p, y, 50, 0.9, 3)
    assert (scores.brier.low, scores.brier.high) == interval
    assert scores.ece.low < scores.ece.high


def test_calibrating_lowers_the_loss_and_the_ece_and_keeps_every_reading():
    logits, labels = noisy_logits(scale=3.0)
    report = scoring.calibrate(logits, labels, n_resamples=20)
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
        scoring.calibrate(logits, labels, n_resamples=2)
