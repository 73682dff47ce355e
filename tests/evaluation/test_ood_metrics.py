import numpy as np
import pytest
from sklearn import metrics

from inkdigits.evaluation.ood_metrics import auroc, fpr_at_95_tpr


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
    assert fpr_at_95_tpr(digits, others) == pytest.approx(false[true >= 0.95 - 1e-12].min())


def test_score_below_everything_is_always_rejected():
    assert auroc([0.1, -5], [-np.inf, -np.inf]) == 1
    assert fpr_at_95_tpr([0.1, -5], [-np.inf]) == 0
