import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.pictures.foreground import Sources
from inkdigits.evaluation.probes import (
    ONES,
    SIDES,
    digit_makers,
    draw_ones,
    empty_makers,
    on_background,
    several_digits,
    several_makers,
)

BAR = np.zeros((1, 28, 28), np.uint8)
BAR[0, 4:24, 13:15] = 255
RING = np.zeros((28, 28), np.uint8)
RING[4:24, 6:22] = 255
RING[8:20, 10:18] = 0


def inked(picture):
    """Where a picture on a light background is dark."""
    return picture < 128


@pytest.mark.parametrize("side", range(4))
def test_a_digit_that_is_cut_off_touches_that_side_only(side):
    make = digit_makers()[f"cut off by 35 %, {SIDES[side]}"]
    for seed in range(10):
        dark = inked(make(RING, np.random.default_rng(seed)))
        edges = [dark[0], dark[:, -1], dark[-1], dark[:, 0]]
        assert [bool(edge.any()) for edge in edges] == [i == side for i in range(4)]


def test_a_flush_digit_is_whole_and_touches_an_edge_or_two():
    for name, touched in (("flush with an edge", 1), ("flush with a corner", 2)):
        for seed in range(10):
            dark = inked(digit_makers()[name](RING, np.random.default_rng(seed)))
            edges = [dark[0], dark[:, -1], dark[-1], dark[:, 0]]
            assert touched <= sum(bool(edge.any()) for edge in edges) <= 2
            rows, columns = np.nonzero(dark)
            assert np.ptp(rows) / np.ptp(columns) == pytest.approx(20 / 16, rel=0.15)


def test_frames_and_tiny_digits_have_the_sizes_that_they_are_named_for():
    rng = np.random.default_rng(0)
    framed = [digit_makers()["frame on some sides"](RING, rng) for _ in range(5)]
    assert all(picture.mean() > 100 for picture in framed)
    tiny = digit_makers()["tiny in a large picture"](RING, rng)
    assert tiny.size > 1_500_000
    rows, _ = np.nonzero(inked(tiny))
    assert 24 <= np.ptp(rows) <= 32


def test_ones_are_narrow_and_empty_paper_is_paper():
    rng = np.random.default_rng(0)
    for name in ONES:
        for picture in draw_ones(name, 4, rng):
            rows, columns = np.nonzero(inked(picture))
            assert np.ptp(columns) < np.ptp(rows)
    for make in empty_makers(Sources(fonts=find_fonts())).values():
        assert make(rng).ndim == 2


def test_several_digits_are_drawn_on_backgrounds_of_their_own():
    makers = several_makers(RING[np.newaxis])
    for name, make in makers.items():
        picture = make(np.random.default_rng(1))
        assert np.ptp(picture) > 60, name
    dim, bright = (np.median(makers[f"two digits on {of}"](np.random.default_rng(2)))
                   for of in ("dim", "bright"))  # fmt: skip
    assert dim < 160 < 220 < bright
    assert on_background(np.ones((1, 1)), np.random.default_rng(0), "dim").max() < 60


def test_several_digits_have_the_size_distance_and_darkness_that_are_asked_for():
    how = {"n": 2, "ratio": (0.35, 0.35), "darkness": (0.3, 0.3), "gap": (1, 1)}
    for seed in range(20):
        canvas = several_digits(np.random.default_rng(seed), BAR, **how)
        dark, faint = canvas > 0.7, (canvas > 0.2) & (canvas < 0.35)
        ends = [np.argwhere(mask) for mask in (dark, faint)]
        high, low = (np.ptp(points, axis=0).max() + 1 for points in ends)
        assert low / high == pytest.approx(0.35, abs=0.15)
        assert np.abs(ends[0].mean(axis=0) - ends[1].mean(axis=0)).max() > 0.6 * high
