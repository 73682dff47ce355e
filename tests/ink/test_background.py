import numpy as np
import pytest

from inkdigits.ink.background import two_shades


def ramp(low, high):
    return np.broadcast_to(np.linspace(low, high, 200, dtype=np.float32), (200, 200))


@pytest.mark.parametrize("inverted", [False, True])
def test_background_of_a_picture_that_its_digit_fills(inverted):
    grey = np.zeros((16, 16), np.float32)
    grey[:, 2:6] = grey[:3] = grey[7:10, :12] = 255  # an F, 55 % of the border
    grey[0, -1] = grey[-1, 0] = 0
    found = two_shades(255 - grey if inverted else grey)
    assert found == ((255, -1, 0) if inverted else (0, 1, 0))
    assert two_shades(ramp(0, 255)) is two_shades(np.full((20, 20), 90, np.float32)) is None
