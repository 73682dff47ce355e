import base64

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

from inkdigits.decision import ood as novelty
from inkdigits.decision.ood import NoveltyScorer, fit, reject_threshold
from inkdigits.errors import ArtifactCorruptError, ConfigError, DataError
from inkdigits.evaluation.ood_comparison import compare, table

METHODS = ("max_logit", "energy", "mahalanobis", "nearest")


@pytest.fixture(scope="module")
def train():
    """Features (600, 12), not below 0, around a centre a digit, and labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 60)
    centres = rng.uniform(0, 10, (10, 12)) * (rng.random((10, 12)) < 0.5)
    features = np.maximum(centres[labels] + rng.normal(0, 0.5, (600, 12)), 0)
    return features.astype(np.float32), labels


def logits_of(features):
    return features @ np.linspace(-1, 1, 120).reshape(12, 10)


def test_energy_and_max_logit_are_their_formulas():
    logits = np.random.default_rng(0).normal(0, 30, (50, 10))
    features = np.ones((50, 3))
    assert NoveltyScorer("energy").score(logits, features) == pytest.approx(
        -logsumexp(logits, axis=1)
    )
    assert NoveltyScorer("max_logit").score(logits, features) == pytest.approx(-logits.max(axis=1))


def test_energy_of_large_logits_does_not_overflow():
    scores = NoveltyScorer("energy").score(np.full((1, 10), 1e4), np.ones((1, 3)))
    assert scores == pytest.approx(-1e4 - np.log(10))


def test_mahalanobis_is_the_distance_to_the_nearest_mean(train):
    features, labels = train
    scorer = fit(features, labels, "mahalanobis")
    means = np.stack([features[labels == d].mean(axis=0) for d in range(10)]).astype(float)
    residuals = features - means[labels]
    covariance = residuals.T @ residuals / len(features)
    covariance += novelty._RIDGE * np.trace(covariance) / 12 * np.eye(12)
    some = features[:40] + 1
    offsets = some[:, None] - means
    squares = np.einsum("nkd,de,nke->nk", offsets, np.linalg.inv(covariance), offsets)
    expected = np.sqrt(squares.min(axis=1))
    assert scorer.score(logits_of(some), some) == pytest.approx(expected, rel=1e-4)


def test_nearest_is_one_less_the_largest_cosine(train):
    features, labels = train
    scorer = fit(features, labels, "nearest", references=200)
    references = scorer.parameters["references"]
    assert references.shape == (200, 12)
    some = np.random.default_rng(1).uniform(0, 1, (30, 12)).astype(np.float32)
    cosines = (some @ references.T) / np.linalg.norm(some, axis=1, keepdims=True)
    assert scorer.score(logits_of(some), some) == pytest.approx(1 - cosines.max(1), abs=1e-5)


def test_references_are_as_many_of_each_digit_and_drawn_by_the_seed(train):
    labels = train[1]
    chosen = novelty.stratified_sample(labels, 100, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [10] * 10
    assert np.array_equal(chosen, novelty.stratified_sample(labels, 100, seed=1))
    assert not np.array_equal(chosen, novelty.stratified_sample(labels, 100, seed=2))
    assert len(novelty.stratified_sample(labels, 10**6)) == 600
    with pytest.raises(ConfigError, match="10 is the least"):
        novelty.stratified_sample(labels, 9)


@pytest.mark.parametrize("method", ["mahalanobis", "nearest"])
def test_what_lies_elsewhere_is_stranger_than_digits(train, method):
    features, labels = train
    scorer = fit(features[::2], labels[::2], method, references=200)
    away = np.random.default_rng(2).uniform(0, 10, (300, 12)).astype(np.float32)
    known = scorer.score(logits_of(features[1::2]), features[1::2])
    assert novelty.auroc(known, scorer.score(logits_of(away), away)) > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_dead_features_are_strange_and_finite(train, method):
    scorer = fit(*train, method, references=200)
    assert np.isfinite(scorer.score(np.zeros((1, 10)), np.zeros((1, 12)))).all()


@pytest.mark.parametrize("method", METHODS)
def test_scorer_scores_the_same_after_a_journey_as_text(train, method):
    scorer = fit(*train, method, references=200)
    back = NoveltyScorer.from_text(method, scorer.to_text())
    some = train[0][:50]
    assert np.array_equal(scorer.score(logits_of(some), some), back.score(logits_of(some), some))
    assert scorer.to_text() == fit(*train, method, references=200).to_text()


@pytest.mark.parametrize("text", ["", "!!", base64.b64encode(b"no archive").decode()])
def test_text_that_is_no_archive_is_refused(text):
    with pytest.raises(ArtifactCorruptError, match="novelty parameters"):
        NoveltyScorer.from_text("nearest", text)


def test_parameters_of_another_method_are_refused(train):
    text = fit(*train, "nearest", references=200).to_text()
    with pytest.raises(ArtifactCorruptError, match="references"):
        NoveltyScorer.from_text("mahalanobis", text)
    with pytest.raises(ArtifactCorruptError, match="method is 'guess'"):
        NoveltyScorer.from_text("guess", text)


@pytest.mark.parametrize("value", [np.zeros(3, np.float32), np.full((2, 2), np.nan, np.float32)])
def test_parameters_that_cannot_be_are_refused(value):
    with pytest.raises(ConfigError, match="references"):
        NoveltyScorer("nearest", {"references": value})


def test_features_of_another_width_are_refused(train):
    scorer = fit(*train, "nearest", references=200)
    with pytest.raises(DataError, match=r"\(N, 12\)"):
        scorer.score(np.zeros((1, 10)), np.zeros((1, 11)))
    with pytest.raises(DataError, match="logits and features"):
        scorer.score(np.zeros((2, 10)), np.zeros((1, 12)))


def test_nothing_to_fit_to_is_refused():
    with pytest.raises(DataError, match="features and labels"):
        fit(np.zeros((0, 12)), np.zeros(0, int))


def test_threshold_rejects_no_more_new_digits_than_promised():
    rng = np.random.default_rng(0)
    share, exceeded = 0.02, []
    for _ in range(300):
        limit = reject_threshold(rng.exponential(size=500), share)
        exceeded.append(np.exp(-limit))  # the exponential's chance of a larger score
    # The mean over draws is what is promised: 10 of 501, with a standard error of 0.04 points.
    assert np.mean(exceeded) == pytest.approx(10 / 501, abs=0.0015)
    assert share >= 10 / 501


def test_threshold_leaves_8_of_3000_digits_above_it():
    scores = np.random.default_rng(0).permutation(3000).astype(float)
    assert (scores > reject_threshold(scores, 0.003)).sum() == 8


def test_too_few_digits_reject_nothing():
    assert reject_threshold(np.arange(332.0), 0.003) is None
    assert reject_threshold(np.arange(333.0), 0.003) == 332


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_share_that_cannot_be_is_refused(share):
    with pytest.raises(ConfigError, match="share"):
        reject_threshold([1.0], share)


@pytest.mark.parametrize("scores", [[], [np.nan]])
def test_scores_that_cannot_be_are_refused(scores):
    with pytest.raises(DataError):
        reject_threshold(scores)


def test_auroc_agrees_with_scikit_learn_with_ties():
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 20, 200), rng.integers(5, 25, 150)
    truth = np.r_[np.zeros(200), np.ones(150)]
    assert novelty.auroc(low, high) == pytest.approx(roc_auc_score(truth, np.r_[low, high]))
    with pytest.raises(DataError, match="AUROC"):
        novelty.auroc([], [1.0])


def test_comparison_measures_every_method_on_every_family():
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 10
    inks = np.zeros((400, 28, 28), np.uint8)
    for ink, label in zip(inks, labels, strict=True):
        ink[2 * label : 2 * label + 6] = rng.integers(150, 256)

    def answer(some):
        features = some.reshape(len(some), 28, 28).mean(axis=2, dtype=np.float32)
        return features[:, 2:22:2], features

    others = {
        "columns": np.ascontiguousarray(inks[:50].transpose(0, 2, 1)),
        "noise": rng.integers(0, 256, (60, 28, 28), dtype=np.uint8),
    }
    rows = compare(answer, (inks[:200], labels[:200]), inks[200:300], inks[300:], others)
    assert {row.method for row in rows} == set(METHODS)
    assert [row.mean_auroc for row in rows] == sorted((r.mean_auroc for r in rows), reverse=True)
    nearest = next(row for row in rows if row.method == "nearest")
    assert nearest.auroc["noise"] > 0.99
    for row in rows:
        assert row.auroc.keys() == row.refused.keys() == others.keys()
        # 100 digits are too few for a threshold at 0.3 %.
        assert row.digits_refused == 0
        assert row.cost > 0
    lines = table(rows).splitlines()
    assert len(lines) == 6
    assert "columns" in lines[0]
    assert f"{rows[0].mean_auroc:.4f}" in lines[2]
