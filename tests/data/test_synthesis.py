import dataclasses

import numpy as np
import pytest
import torch

from inkdigits.data.corruptions import FAMILIES
from inkdigits.data.hands import Hands
from inkdigits.data.mnist import Digits
from inkdigits.data.synthesis import SynthesisConfig, lower_resolution, synthesise
from inkdigits.errors import DataError
from inkdigits.types import NO_DIGIT

CONFIG = SynthesisConfig(digits=120, others=90, seed=3)


@pytest.fixture(scope="module")
def some(digits):
    inks, labels = digits
    return Digits(torch.from_numpy(inks[:200]), torch.from_numpy(labels[:200].astype(np.int64)))


@pytest.fixture(scope="module")
def made(some):
    return synthesise(some, CONFIG, workers=1)


def test_about_as_many_digits_and_others_come_out_as_were_asked_for(made):
    others = int((made.labels == NO_DIGIT).sum())
    # Noise and blanks are found to have no ink, as they should be, and are left out.
    assert 50 <= others <= 95
    assert 90 <= len(made) - others <= 130
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


@pytest.mark.parametrize(("drawn", "least", "most"), [(0.0, 0, 0), (0.5, 40, 45)])
def test_a_share_of_the_reduced_digits_is_drawn_instead_of_given(some, drawn, least, most):
    sevens = some[(some.labels == 7).nonzero().squeeze(1)]
    none = dict.fromkeys(("others", "photos", "corrupted", "strokes", "printed"), 0)
    config = SynthesisConfig(digits=100, drawn=drawn, **none)
    labels = synthesise(sevens, config, workers=1).labels
    # Half are drawn, of which a tenth are sevens too; in the smallest no ink may be found.
    assert least <= int((labels != 7).sum()) <= most


def test_other_hands_write_a_share_where_their_digits_are_given(some):
    sevens = some[(some.labels == 7).nonzero().squeeze(1)]
    bar = np.array([[5.0, 0.0], [5.0, 9.0]])
    hands = Hands(strokes=((bar,),), stroke_labels=np.array([1]))
    none = dict.fromkeys(("others", "photos", "low_resolution", "strokes", "printed", "drawn"), 0)
    config = SynthesisConfig(digits=150, corrupted=0.5, hands=0.5, of_hands=0.2, **none)
    labels = synthesise(sevens, config, hands, workers=1).labels
    # Half are drawn as they are, and of the ten corrupted others of each kind two are.
    assert 85 <= int((labels == 1).sum()) <= 95
    assert not (synthesise(sevens, config, workers=1).labels == 1).any()


def test_too_few_or_no_digits_and_an_invalid_composition_are_errors(some):
    with pytest.raises(DataError, match="1 digits and 0 others are too few"):
        synthesise(some, SynthesisConfig(digits=1, others=0))
    with pytest.raises(DataError, match="no digits"):
        synthesise(some[torch.arange(0)], CONFIG)
    for wrong in ({"kinds": (("goblin", 1.0),)}, {"digits": 0, "others": 0}, {"digits": -1}):
        with pytest.raises(DataError):
            dataclasses.replace(CONFIG, **wrong)


def test_lower_resolution_still_shows_the_digit(some):
    pictures = lower_resolution(some.inks.numpy()[:60], np.random.default_rng(0))
    assert len(pictures) == 60
    assert min(p.shape[0] for p in pictures) < 20 < max(p.shape[0] for p in pictures)
    for picture in pictures:
        assert (picture.dtype, picture.ndim) == (np.uint8, 2)
        assert np.ptp(picture) > 100  # ink and paper are both there, whichever is the darker
