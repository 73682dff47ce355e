import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.ink.background import estimate_background, lighting_surface, two_shades


def stroke(shade, background):
    """A diagonal stroke on a background (200, 200)."""
    mask = Image.new("L", (200, 200), 0)
    ImageDraw.Draw(mask).line([(60, 40), (130, 160)], fill=255, width=14)
    covered = np.asarray(mask, dtype=np.float32) / 255
    return (background * (1 - covered) + shade * covered).astype(np.float32)


def ramp(low, high):
    return np.broadcast_to(np.linspace(low, high, 200, dtype=np.float32), (200, 200))


def test_shade_follows_the_light_under_the_stroke_too():
    found = estimate_background(stroke(40, ramp(120, 230)))
    assert (found.sign, estimate_background(stroke(220, ramp(30, 70))).sign) == (-1, 1)
    large = np.asarray(Image.fromarray(found.shade).resize((200, 200), Image.Resampling.BILINEAR))
    assert np.abs(large - ramp(120, 230))[10:-10, 10:-10].max() < 12


def test_ink_is_as_dark_in_the_shade_as_in_the_light():
    ink = stroke(50, np.full((200, 200), 220, np.float32)) * ramp(0.5, 1.0)
    background = estimate_background(ink)
    found = background.contrast(ink, (0, 0, *background.shade.shape[::-1]))
    left, right = found[45:55, 55:75].max(), found[145:155, 115:135].max()
    assert left / right == pytest.approx(1, abs=0.15)


def test_a_stroke_has_contrast_and_the_edge_of_a_shadow_has_none():
    shadowed = np.full((128, 128), 230, np.float32)
    shadowed[:, 70:] = 130
    found, _ = estimate_background(shadowed).stroke_contrast(shadowed)
    assert found[10:-10, 10:-10].max() < 12
    shadowed[60:66, 30:110] *= 0.2
    found, relief = estimate_background(shadowed).stroke_contrast(shadowed)
    assert found[63, 40:65].min() > 60
    assert found[63, 76:100].min() > 60
    assert relief.shape == found.shape


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
