import numpy as np
import pytest
from sklearn import metrics

from inkdigits.errors import ConfigError, DataError
from inkdigits.evaluation.ood_metrics import auroc, fpr_at_tpr


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_auroc_and_fpr_at_tpr_agree_with_scikit_learn(seed, decimals):
    # The scores overlap, and are rounded, so that many are equal.
    rng = np.random.default_rng(seed)
    digits, others = (np.round(rng.normal(m, 1, n), decimals) for m, n in ((1, 300), (0, 170)))
    truth = np.repeat([1, 0], [len(digits), len(others)])
    everything = np.concatenate([digits, others])
    assert auroc(digits, others) == pytest.approx(metrics.roc_auc_score(truth, everything))
    false, true, _ = metrics.roc_curve(truth, everything, drop_intermediate=False)
    for tpr in (0.5, 0.95, 1.0):
        assert fpr_at_tpr(digits, others, tpr) == pytest.approx(false[true >= tpr - 1e-12].min())


def test_score_below_everything_is_always_rejected():
    assert auroc([0.1, -5], [-np.inf, -np.inf]) == 1
    assert fpr_at_tpr([0.1, -5], [-np.inf], tpr=1) == 0


@pytest.mark.parametrize("metric", [auroc, fpr_at_tpr])
@pytest.mark.parametrize(
    ("digits", "others"), [([], [1]), ([1], []), ([[1]], [1]), ([np.nan], [1]), ([1], [np.nan])]
)
def test_invalid_scores_and_rates_are_errors(metric, digits, others):
    with pytest.raises(DataError, match="scores of"):
        metric(digits, others)
    for tpr in (0, 1.1, 95):
        with pytest.raises(ConfigError, match="tpr"):
            fpr_at_tpr([1], [0], tpr)
