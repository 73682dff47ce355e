import numpy as np
import pytest
from scipy.special import logsumexp

from inkdigits.decision.ood import energy, reject_threshold
from inkdigits.errors import ConfigError, DataError


def test_energy_is_its_formula():
    logits = np.random.default_rng(0).normal(0, 30, (50, 10))
    for scale in (1, 1e4):
        assert energy(scale * logits) == pytest.approx(-logsumexp(scale * logits, axis=1))
    with pytest.raises(DataError, match=r"\(N, 10\)"):
        energy(np.zeros(10))


def test_threshold_rejects_no_more_new_digits_than_promised():
    rng = np.random.default_rng(0)
    share, exceeded = 0.02, []
    for _ in range(300):
        limit = reject_threshold(rng.exponential(size=500), share)
        exceeded.append(np.exp(-limit))  # the exponential's chance of a larger score
    # The mean over draws is what is promised: 10 of 501, with a standard error of 0.04 points.
    assert np.mean(exceeded) == pytest.approx(10 / 501, abs=0.0015)
    assert share >= 10 / 501


def test_threshold_leaves_8_of_3000_digits_above_it_and_rejects_none_of_too_few():
    scores = np.random.default_rng(0).permutation(3000).astype(float)
    assert (scores > reject_threshold(scores, 0.003)).sum() == 8
    assert reject_threshold(np.arange(332.0), 0.003) is None
    assert reject_threshold(np.arange(333.0), 0.003) == 332


@pytest.mark.parametrize(
    ("scores", "share", "error"),
    [([1.0], 0.0, ConfigError), ([1.0], 1.0, ConfigError), ([], 0.1, DataError),
     ([np.nan], 0.1, DataError)],
)  # fmt: skip
def test_threshold_needs_finite_scores_and_a_share_between_0_and_1(scores, share, error):
    with pytest.raises(error):
        reject_threshold(scores, share)
