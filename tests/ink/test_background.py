import numpy as np
import pytest

from inkdigits.ink.background import lighting_surface, two_shades


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


def test_lighting_is_that_of_the_background_not_of_the_ink():
    light = np.add.outer(np.linspace(0, 40, 28), np.linspace(60, 110, 28)).astype(np.float32)
    grey = light.copy()
    grey[8:20, 12:16] += 120
    assert np.abs(lighting_surface(grey) - light).max() < 4
