import numpy as np
import pytest
from scipy.stats import binomtest
from support.artifacts import worse

import inkdigits
from inkdigits.data.labelled import Example, Labelled
from inkdigits.evaluation.compare import (
    compare,
    drop_bound,
    mcnemar,
    paired_difference,
    pictures_needed,
)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (3, 11), (40, 40), (900, 700)])
def test_mcnemar_is_the_exact_binomial_test(a, b):
    expected = 1.0 if a + b == 0 else binomtest(a, a + b).pvalue
    assert mcnemar(a, b) == pytest.approx(expected)
    assert mcnemar(a, b) == mcnemar(b, a)


def test_interval_of_a_difference_holds_it_as_often_as_it_says():
    rng, held = np.random.default_rng(3), 0
    for _ in range(2000):
        cells = rng.multinomial(300, (0.02, 0.06, 0.92))
        found = paired_difference(int(cells[0]), int(cells[1]), 300)
        held += found.low <= 0.04 <= found.high
    assert 0.935 < held / 2000 < 0.97


def test_a_drop_at_the_limit_passes_its_bound_as_rarely_as_it_says():
    rng, passed = np.random.default_rng(4), 0
    for _ in range(2000):
        cells = rng.multinomial(300, (0.06, 0.03, 0.91))  # B is worse by 3 points
        passed += drop_bound(int(cells[0]), int(cells[1]), 300) <= 0.03
    assert 0.03 < passed / 2000 < 0.07


@pytest.mark.parametrize(("a", "b", "n", "limit"), [(0, 0, 50, 0.0005), (4, 1, 300, 0.02)])
def test_so_many_pictures_bound_the_drop_and_one_fewer_does_not(a, b, n, limit):
    needed = pictures_needed(a, b, n, limit)
    bounds = [drop_bound(a * m / n, b * m / n, m) for m in (needed - 1, needed)]
    assert bounds[0] > limit >= bounds[1]


def test_models_are_compared_picture_by_picture(digits, tmp_path):
    inks, labels = digits
    examples = [
        Example(str(n), "ab"[n % 8 // 4], inks[n], int(labels[n])) for n in range(0, 600, 4)
    ]
    a, b = inkdigits.load(), inkdigits.load(worse(tmp_path / "worse.onnx"))
    found = compare(a, b, Labelled(examples))
    everything = found.pairs[0]
    assert found.versions == (a.model_version, b.model_version)
    assert everything.b.n_right - everything.a.n_right == everything.only_b - everything.only_a < -5
    assert everything.difference.high < 0
    assert everything.p < 0.01
    names = [pair.name for pair in found.pairs]
    assert names == ["all", *(f"digit {n}" for n in range(10)), "a", "b"]
    assert {pair.name: pair.only_a for pair in found.pairs}["digit 3"] == 0
    assert min(found.milliseconds) > 0
    assert "points" in found.table()
    assert found.to_dict()["pairs"][0]["a"]["n"] == len(examples)
    same = compare(a, a, Labelled(examples[:20])).pairs[0]
    assert (same.p, same.difference.value) == (1.0, 0.0)
