import numpy as np
import pytest
from scipy import ndimage

from inkdigits.ink.components import connected_components, is_connected


def count(mask):
    return ndimage.label(mask, np.ones((3, 3)))[1]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_components_are_those_that_scipy_finds(share):
    rng = np.random.default_rng(int(share * 10))
    for shape in [(1, 1), (1, 9), (9, 1), (17, 23)]:
        mask = rng.random(shape) < share
        ink = rng.random(shape).astype(np.float32)
        found = connected_components(mask, ink)
        assert len(found) == count(mask)
        assert np.array_equal(found.number >= 0, mask)
        for i in range(len(found)):
            own = found.number == i
            rows, columns = np.nonzero(own)
            assert found.area[i] == own.sum()
            assert found.ink[i] == pytest.approx(ink[own].sum(), rel=1e-4)
            assert found.peak[i] == ink[own].max()
            box = (found.left[i], found.top[i], found.right[i], found.bottom[i])
            assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_spiral_is_one_component():
    mask = np.zeros((41, 41), dtype=bool)
    low, high = 0, 40
    while low < high:
        mask[low, max(0, low - 2) : high + 1] = mask[low : high + 1, high] = True
        mask[high, low : high + 1] = mask[low + 2 : high + 1, low] = True
        low, high = low + 2, high - 2
    assert len(connected_components(mask, mask.astype(np.float32))) == count(mask)


def test_a_mask_is_connected_where_it_has_one_component_at_most():
    rng = np.random.default_rng(5)
    found = []
    for _ in range(300):
        mask = rng.random(rng.integers(1, 9, 2)) < rng.choice([0.1, 0.5, 0.8])
        found.append(is_connected(mask))
        assert found[-1] == (len(connected_components(mask, mask.astype(np.float32))) <= 1)
    assert 50 < sum(found) < 250


def test_in_a_large_mask_a_gap_of_a_pixel_does_not_count_and_one_of_three_does():
    for gap, connected in [(1, True), (3, False)]:
        mask = np.zeros((200, 60), bool)
        mask[:101], mask[101 + gap :] = True, True
        assert is_connected(mask) is connected
