import numpy as np
import pytest

from inkdigits.ink.field import field_ink


def field(dark=True):
    picture = np.full((60, 200), 230 if dark else 20, np.uint8)
    picture[15:45, 40:46] = picture[15:45, 100:106] = 30 if dark else 220
    return picture


@pytest.mark.parametrize("dark", [True, False])
def test_ink_is_1_and_background_0_whichever_is_the_darker(dark):
    ink = field_ink(field(dark))
    assert ink.dtype == np.float32
    assert ink[20:40, 42].min() == 1
    assert ink[:, 70].max() < 0.1


def test_uneven_light_and_noise_change_little():
    rng = np.random.default_rng(0)
    light = np.linspace(1.0, 0.55, 200) * np.linspace(1.0, 0.8, 60)[:, np.newaxis]
    picture = np.clip(field() * light + rng.normal(0, 3, (60, 200)), 0, 255).astype(np.uint8)
    ink = field_ink(picture)
    assert np.array_equal(ink > 0.5, field() < 100)


def test_empty_paper_has_no_ink():
    rng = np.random.default_rng(0)
    assert not field_ink(np.full((50, 100), 240, np.uint8)).any()
    grain = np.clip(rng.normal(180, 4, (50, 100)), 0, 255).astype(np.uint8)
    assert not field_ink(grain).any()
