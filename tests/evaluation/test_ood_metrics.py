import numpy as np
import pytest
from sklearn import metrics

from inkdigits.errors import ConfigError, DataError
from inkdigits.evaluation.ood_metrics import auroc, fpr_at_tpr


def scores(seed, decimals):
    """Overlapping scores; rounded, so that many are equal."""
    rng = np.random.default_rng(seed)
    return (
        np.round(rng.normal(1, 1, 300), decimals),
        np.round(rng.normal(0, 1, 170), decimals),
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_auroc_and_fpr_at_tpr_agree_with_scikit_learn(seed, decimals):
    digits, others = scores(seed, decimals)
    truth = np.repeat([1, 0], [len(digits), len(others)])
    everything = np.concatenate([digits, others])
    assert auroc(digits, others) == pytest.approx(
        metrics.roc_auc_score(truth, everything), abs=1e-12
    )
    false, true, _ = metrics.roc_curve(truth, everything, drop_intermediate=False)
    for tpr in (0.5, 0.95, 1.0):
        assert fpr_at_tpr(digits, others, tpr) == pytest.approx(false[true >= tpr - 1e-12].min())


def test_perfect_useless_and_reversed_scores():
    assert auroc([2, 3], [0, 1]) == 1
    assert fpr_at_tpr([2, 3], [0, 1]) == 0
    assert auroc([1, 1], [1, 1]) == 0.5
    assert fpr_at_tpr([1, 1], [1, 1]) == 1
    assert auroc([0, 1], [2, 3]) == 0


def test_a_score_below_everything_is_always_refused():
    assert auroc([0.1, -5], [-np.inf, -np.inf]) == 1
    assert fpr_at_tpr([0.1, -5], [-np.inf], tpr=1) == 0


@pytest.mark.parametrize("metric", [auroc, fpr_at_tpr])
@pytest.mark.parametrize(
    ("digits", "others"), [([], [1]), ([1], []), ([[1]], [1]), ([np.nan], [1]), ([1], [np.nan])]
)
def test_scores_that_cannot_be_are_refused(metric, digits, others):
    with pytest.raises(DataError, match="scores of"):
        metric(digits, others)


@pytest.mark.parametrize("tpr", [0, 1.1, 95])
def test_a_rate_that_cannot_be_is_refused(tpr):
    with pytest.raises(ConfigError, match="tpr"):
        fpr_at_tpr([1], [0], tpr)
