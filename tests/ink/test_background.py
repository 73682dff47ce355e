import numpy as np
import pytest
from PIL import Image, ImageDraw

from inkdigits.ink.background import find_paper, slope, two_shades


def stroke(shade: float, paper: np.ndarray) -> np.ndarray:
    """A diagonal stroke on paper (200, 200)."""
    mask = Image.new("L", (200, 200), 0)
    ImageDraw.Draw(mask).line([(60, 40), (130, 160)], fill=255, width=14)
    covered = np.asarray(mask, dtype=np.float32) / 255
    return (paper * (1 - covered) + shade * covered).astype(np.float32)


def ramp(low: float, high: float) -> np.ndarray:
    return np.broadcast_to(np.linspace(low, high, 200, dtype=np.float32), (200, 200))


def whole(paper) -> tuple[int, int, int, int]:
    return 0, 0, paper.shade.shape[1], paper.shade.shape[0]


def test_shade_follows_the_light_under_the_stroke_too():
    grey = stroke(40, ramp(120, 230))
    paper = find_paper(grey)
    assert paper.sign == -1
    large = np.asarray(Image.fromarray(paper.shade).resize((200, 200), Image.Resampling.BILINEAR))
    assert np.abs(large - ramp(120, 230))[10:-10, 10:-10].max() < 12


def test_light_ink_on_dark_paper_is_ink():
    paper = find_paper(stroke(220, ramp(30, 70)))
    assert paper.sign == 1


def test_ink_is_as_dark_in_the_shade_as_in_the_light():
    light = ramp(0.5, 1.0)
    ink = stroke(50, np.full((200, 200), 220, np.float32)) * light
    paper = find_paper(ink)
    found = paper.ink(ink, whole(paper))
    left, right = found[45:55, 55:75].max(), found[145:155, 115:135].max()
    assert left / right == pytest.approx(1, abs=0.15)


def test_edge_of_a_shadow_does_not_stand_out_but_a_stroke_across_it_does():
    shadowed = np.full((128, 128), 230, np.float32)
    shadowed[:, 70:] = 130
    found, _ = find_paper(shadowed).standing_out(shadowed)
    assert found[10:-10, 10:-10].max() < 12
    shadowed[60:66, 30:110] *= 0.2
    found, relief = find_paper(shadowed).standing_out(shadowed)
    assert found[63, 40:65].min() > 60
    assert found[63, 76:100].min() > 60
    assert relief.shape == found.shape


@pytest.mark.parametrize("inverted", [False, True])
def test_paper_of_a_picture_that_its_digit_fills(inverted):
    grey = np.zeros((16, 16), np.float32)
    grey[:, 2:6] = grey[:3] = grey[7:10, :12] = 255  # an F, 55 % of the border
    grey[0, -1] = grey[-1, 0] = 0
    paper, sign, noise = two_shades(255 - grey if inverted else grey)
    assert paper == (255 if inverted else 0)
    assert sign == (-1 if inverted else 1)
    assert noise == 0


def test_a_ramp_is_not_two_shades_and_one_shade_is_not_either():
    assert two_shades(ramp(0, 255)) is None
    assert two_shades(np.full((20, 20), 90, np.float32)) is None


def test_slope_is_that_of_the_paper_not_of_the_ink():
    paper = np.add.outer(np.linspace(0, 40, 28), np.linspace(60, 110, 28)).astype(np.float32)
    grey = paper.copy()
    grey[8:20, 12:16] += 120
    assert np.abs(slope(grey) - paper).max() < 4
