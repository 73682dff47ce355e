import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.decision.drift import (
    STATISTICS,
    DriftReference,
    Reference,
    Window,
    population_stability_index,
    statistics,
)
from inkdigits.errors import DataError

SCALE = 16


def stroke(width, degrees=0.0):
    """(28, 28) uint8: a straight line of a width, leaning to the right by so many degrees."""
    image = Image.new("L", (28 * SCALE, 28 * SCALE))
    reach = 9 * np.tan(np.radians(degrees))
    line = np.array([(13.5 + reach, 4.5), (13.5 - reach, 22.5)]) * SCALE
    ImageDraw.Draw(image).line(line.ravel().tolist(), fill=255, width=round(width * SCALE))
    return np.asarray(image.resize((28, 28), Image.Resampling.BOX))


def leaning(inks, shear):
    """Lean the ink to the right."""
    how = (Image.Transform.AFFINE, (1, shear, -13.5 * shear, 0, 1, 0), Image.Resampling.BILINEAR)
    return np.stack([np.asarray(Image.fromarray(ink).transform((28, 28), *how)) for ink in inks])


@pytest.mark.parametrize("degrees", [0.0, 20.0, -35.0])
@pytest.mark.parametrize("width", [1.5, 3.0, 4.5])
def test_width_and_lean_of_a_drawn_stroke_are_found(width, degrees):
    found = statistics(stroke(width, degrees)[None], [0.9])
    # The formula counts the ends too: 18 pixels of length make it narrower by a few percent.
    assert found["stroke_width"] == pytest.approx(width, rel=0.25)
    assert found["slant"] == pytest.approx(degrees, abs=2)


def test_ink_in_one_row_leans_neither_way_and_share_is_of_all_pixels():
    ink = np.zeros((1, 28, 28), np.uint8)
    ink[0, 14, 4:24] = 255
    found = statistics(ink, [0.9])
    assert (found["slant"].tolist(), found["ink_share"].tolist()) == ([0.0], [20 / 784])


def test_stability_index_is_that_of_its_formula_and_zero_for_the_same_shares():
    shares = [0.2, 0.3, 0.5]
    assert population_stability_index([2000, 3000, 5000], shares) == pytest.approx(0, abs=1e-9)
    observed = np.array([0.4, 0.3, 0.3])
    expected = ((observed - shares) * np.log(observed / shares)).sum()
    assert population_stability_index(observed * 1e9, shares) == pytest.approx(expected)
    assert 0 < population_stability_index([1, 0, 0], shares) < 10
    assert np.isnan(population_stability_index([0, 0, 0], shares))


VALUES = [np.arange(1000.0), np.repeat([0.0, 1.0], 500), np.full(1000, 3.0)]
LUMPS = [np.r_[np.zeros(900), np.arange(1, 101)], np.r_[np.arange(100), np.full(900, 100.0)]]


@pytest.mark.parametrize("values", VALUES + LUMPS)
def test_bins_of_a_reference_hold_all_of_it_and_none_is_empty(values):
    one = Reference.of(values)
    assert len(one.shares) == len(one.edges) + 1
    assert min(one.shares) > 0
    assert sum(one.shares) == pytest.approx(1)
    assert list(one.edges) == sorted(set(one.edges))


@pytest.fixture(scope="module")
def inks(digits):
    inks = digits[0][digits[0].any(axis=(1, 2))]
    return np.random.default_rng(1).permutation(inks)


def confidences(n, seed=2):
    return 1 - 10.0 ** -np.random.default_rng(seed).uniform(0.3, 6, n)


@pytest.fixture(scope="module")
def reference(inks):
    return DriftReference.from_inks_and_confidences(inks[:900], confidences(900))


def indices(reference, inks, sure):
    window = Window(reference, 1000)
    for start in range(0, len(inks), 50):
        window.add(inks[start : start + 50], sure[start : start + 50])
    known, counts = reference.statistics, window.counts
    return {k: population_stability_index(counts[k], known[k].shares) for k in known}


@pytest.mark.heavy
def test_only_what_differs_from_the_reference_drifts(reference, inks):
    others, sure = inks[900:], confidences(len(inks) - 900, seed=3)
    found = indices(reference, others, sure)
    assert set(found) == set(STATISTICS)
    assert max(found.values()) < 0.1
    found = indices(reference, leaning(others, 0.4), sure)
    assert found["confidence"] < 0.1 < 0.25 < found["slant"]
    found = indices(reference, others, 0.9 * sure)
    assert found["slant"] < 0.1 < 0.25 < found["confidence"]


def test_window_forgets_and_is_the_same_picture_by_picture(reference, inks):
    at_once, one_by_one, sure = Window(reference, 50), Window(reference, 50), confidences(200)
    at_once.add(inks[:200], sure)
    for i in range(200):
        one_by_one.add(inks[i : i + 1], sure[i : i + 1])
    for name in STATISTICS:
        assert at_once.counts[name] == pytest.approx(one_by_one.counts[name])
        assert at_once.sums[name] == pytest.approx(one_by_one.sums[name])
        assert at_once.counts[name].sum() == pytest.approx(50 * (1 - (1 - 1 / 50) ** 200))


def broken(**change):
    one = {"mean": 0.0, "deviation": 1.0, "edges": [0.0], "shares": [0.5, 0.5]}
    return {"n": 1, "statistics": {name: {**one, **change} for name in STATISTICS}}


@pytest.mark.parametrize(
    "content",
    [
        *({}, {"n": 1, "statistics": {}}, {"n": 1, "statistics": None}),
        broken(mean="far"),
        broken(edges=[0.0, 0.0], shares=[0.2, 0.3, 0.5]),
        broken(shares=[1.0]),
        broken(shares=[0.0, 1.0]),
        broken(shares=[0.4, 0.4]),
    ],
)
def test_reference_comes_back_from_json_unless_it_is_invalid(content, reference):
    assert DriftReference.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference
    DriftReference.from_dict(broken())
    with pytest.raises(DataError, match="drift"):
        DriftReference.from_dict(content)


def test_reference_is_of_the_pictures_that_have_ink(reference, inks):
    blank, sure = np.zeros((50, 28, 28), np.uint8), np.r_[np.zeros(50), confidences(900)]
    make = DriftReference.from_inks_and_confidences
    assert make(np.concatenate([blank, inks[:900]]), sure) == reference
    with pytest.raises(DataError, match="100 pictures with ink, not 99"):
        make(np.concatenate([blank, inks[:99]]), confidences(149))
