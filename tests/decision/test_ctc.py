import itertools

import numpy as np
import pytest

from inkdigits.decision.ctc import NOTHING, SYMBOLS, likeliest_texts, log_softmax


def columns(text, sure=0.9):
    """Columns of a text: each of its characters is likely in one; "-" stands for nothing."""
    shares = np.full((len(text), 12), (1 - sure) / 11)
    for t, symbol in enumerate(text):
        shares[t, NOTHING if symbol == "-" else SYMBOLS.index(symbol)] = sure
    return np.log(shares)


@pytest.mark.parametrize(
    ("seen", "text"),
    [("--7--", "7"), ("77", "7"), ("7-7", "77"), ("-1123--", "123"), ("---", ""), ("3?4", "3?4")],
)
def test_repetitions_are_one_and_nothing_is_left_out(seen, text):
    assert likeliest_texts(columns(seen), most=9)[0].text == text


def test_probabilities_are_those_of_all_ways_to_write_a_text():
    rng = np.random.default_rng(0)
    log_p = log_softmax(rng.normal(0, 2, (4, 12)))
    known = {}
    for path in itertools.product(range(12), repeat=4):
        kept = [c for c, _ in itertools.groupby(path) if c != NOTHING]
        text = "".join(SYMBOLS[c] for c in kept)
        share = np.exp(sum(log_p[t, c] for t, c in enumerate(path)))
        known[text] = known.get(text, 0.0) + share
    found = likeliest_texts(log_p, most=4, n=20_000)
    assert {one.text for one in found[:5]} == set(sorted(known, key=known.get)[-5:])
    for one in found[:20]:
        assert np.exp(one.log_p) == pytest.approx(known[one.text], rel=0.05)


def test_texts_have_at_most_so_many_symbols():
    assert {len(one.text) for one in likeliest_texts(columns("1-2-3"), most=2)} <= {0, 1, 2}


def test_each_symbol_has_its_surest_column():
    seen = columns("--77-7--0")
    seen[3, 7] += 0.05
    assert likeliest_texts(seen, most=9)[0].places == (3, 5, 8)


def test_softmax_is_that_of_scipy():
    scipy = pytest.importorskip("scipy.special")
    logits = np.random.default_rng(0).normal(0, 50, (20, 11))
    assert log_softmax(logits) == pytest.approx(scipy.log_softmax(logits, axis=1))
