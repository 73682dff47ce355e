import numpy as np
import pytest

from inkdigits.decision.pieces import find_line
from inkdigits.decision.segmentation import (
    Costs,
    best_paths,
    doubtful,
    find_candidates,
    log_softmax,
)

CERTAIN = 12.0


def bars(*columns):
    """A line of upright strokes at some columns."""
    ink = np.zeros((40, 200), np.float32)
    for column in columns:
        ink[8:32, column : column + 4] = 1
    return find_line(ink, 0.4).pieces()


def reads_single_strokes(inks):
    """Read what is narrow as 1, and nothing else as a digit."""
    logits = np.full((len(inks), 10), -CERTAIN, np.float32)
    narrow = (inks > 60).any(axis=1).sum(axis=1) < 8
    logits[narrow, 1] = CERTAIN
    return logits


def test_candidates_are_pieces_and_near_neighbours():
    found = find_candidates(bars(20, 30, 120), reads_single_strokes)
    assert list(zip(found.first, found.last, strict=True)) == [(0, 1), (0, 2), (1, 2), (2, 3)]
    assert found.log_p.shape == (4, 11)
    assert np.exp(found.log_p).sum(axis=1) == pytest.approx(1)
    assert found.log_p[:, 1].argmin() == 1


def test_best_path_takes_what_reads_as_digits_and_not_their_pairs():
    pieces = bars(20, 30, 120)
    paths = best_paths(pieces, find_candidates(pieces, reads_single_strokes))
    assert paths[0].text == "111"
    assert len({path.text for path in paths}) == len(paths)
    assert [p.score for p in paths] == sorted((p.score for p in paths), reverse=True)


def test_length_limits_the_paths():
    pieces = bars(20, 60, 100, 140)
    candidates = find_candidates(pieces, reads_single_strokes)
    assert {len(p.segments) for p in best_paths(pieces, candidates, (2, 3))} <= {0, 2, 3}
    assert [path.text for path in best_paths(pieces, candidates, (5, 6))] == [""]


def test_what_reads_as_no_digit_is_left_out_and_counted():
    pieces = bars(20, 60)
    candidates = find_candidates(pieces, lambda inks: np.full((len(inks), 10), -9.0, np.float32))
    (path, *_) = best_paths(pieces, candidates)
    assert (path.text, path.left_out) == ("", 2)


def test_certain_digit_of_its_shape_is_not_cut():
    pieces = bars(20, 60)
    assert doubtful(pieces, find_candidates(pieces, reads_single_strokes)) == set()
    unsure = find_candidates(pieces, lambda inks: np.zeros((len(inks), 10), np.float32))
    assert doubtful(pieces, unsure) == {0, 1}


def test_cost_of_a_low_digit_is_in_its_scores():
    candidates = find_candidates(bars(20), reads_single_strokes)
    plain, dear = (candidates.scores(Costs(least=least)) for least in (0.7, 1.5))
    assert (dear < plain).all()


def test_softmax_is_that_of_scipy():
    scipy = pytest.importorskip("scipy.special")
    logits = np.random.default_rng(0).normal(0, 50, (20, 11))
    assert log_softmax(logits) == pytest.approx(scipy.log_softmax(logits, axis=1))
