import dataclasses

import numpy as np
import pytest
import torch

from inkdigits.data.corruptions import FAMILIES
from inkdigits.data.hands import Hands
from inkdigits.data.mnist import Digits
from inkdigits.data.synthesis import Material, SynthesisConfig, synthesise
from inkdigits.errors import DataError
from inkdigits.types import NO_DIGIT

CONFIG = SynthesisConfig(digits=120, others=90, seed=3)


@pytest.fixture(scope="module")
def some(digits):
    inks, labels = digits
    labels = torch.from_numpy(labels[:200].astype(np.int64))
    return Material(Digits(torch.from_numpy(inks[:200]), labels))


@pytest.fixture(scope="module")
def made(some):
    return synthesise(some, CONFIG, workers=1)


def test_about_as_many_digits_and_others_come_out_as_were_asked_for(made):
    others = int((made.labels == NO_DIGIT).sum())
    # Noise and blanks are found to have no ink, as they should be, and are left out.
    assert 60 <= others <= 95
    assert 100 <= len(made) - others <= 130
    assert set(made.labels.tolist()) == set(range(NO_DIGIT, 10))
    assert (made.inks.dtype, made.inks.shape[1:]) == (torch.uint8, (28, 28))
    assert bool(made.inks.flatten(1).any(1).all())


@pytest.mark.heavy
def test_seed_but_not_the_number_of_processes_decides_and_progress_is_reported(some, made):
    assert synthesise(some, CONFIG, workers=2).digest() == made.digest()
    told, config = [], dataclasses.replace(CONFIG, seed=4)
    other = synthesise(some, config, workers=1, report=lambda *counts: told.append(counts))
    assert other.digest() != made.digest()
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][0] == told[-1][1] >= len(FAMILIES)


def only(way: str, n: int) -> SynthesisConfig:
    return SynthesisConfig(digits=n, others=0, ways=((way, 1.0),))


def sevens(some) -> Digits:
    return some.digits[(some.digits.labels == 7).nonzero().squeeze(1)]


def test_a_share_of_the_reduced_digits_is_drawn_instead_of_given(some):
    labels = synthesise(Material(sevens(some)), only("low_resolution", 100), workers=1).labels
    # Half are drawn, of which a tenth are sevens too.
    assert 30 <= int((labels != 7).sum()) <= 50


def test_other_hands_write_where_their_digits_are_given(some):
    bar = np.array([[5.0, 0.0], [5.0, 9.0]])
    hands = Hands(strokes=((bar,),), stroke_labels=np.array([1]))
    labels = synthesise(Material(sevens(some), hands), only("hands", 20), workers=1).labels
    assert set(labels.tolist()) == {1}
    with pytest.raises(DataError, match="too few"):
        synthesise(Material(sevens(some)), only("hands", 20), workers=1)


@pytest.mark.parametrize("kind", ["several", "pair", "cut", "empty", "wrong_piece"])
def test_what_is_no_single_whole_digit_is_labelled_as_none(some, kind):
    config = SynthesisConfig(digits=0, others=12, kinds=((kind, 1.0),))
    made = synthesise(some, config, workers=1)
    assert set(made.labels.tolist()) == {NO_DIGIT}


@pytest.mark.parametrize("way", ["paper", "tiny", "canvas", "cut", "printed", "whole_piece"])
def test_each_way_gives_labelled_digits(some, way):
    made = synthesise(some, only(way, 10), workers=1)
    assert len(made) >= 4
    assert int(made.labels.min()) >= 0


def test_interrupted_it_makes_only_the_parts_that_are_missing(some, made, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, _):
        if done == 5:
            raise StopError

    with pytest.raises(StopError):
        synthesise(some, CONFIG, workers=1, kept=tmp_path, report=stop)
    assert len(list(tmp_path.iterdir())) == 5
    assert synthesise(some, CONFIG, workers=1, kept=tmp_path).digest() == made.digest()


def test_too_few_or_no_digits_are_errors(some):
    with pytest.raises(DataError, match="1 digits and 0 others are too few"):
        synthesise(some, SynthesisConfig(digits=1, others=0))
    with pytest.raises(DataError, match="no digits"):
        synthesise(Material(some.digits[torch.arange(0)]), CONFIG)
