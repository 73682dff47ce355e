import numpy as np
import pytest

from inkdigits.data.pictures.surroundings import (
    add_edges,
    grain_of,
    light_of,
    shadow_of,
    sheet_of,
    surroundings,
)

SHAPE = (90, 120)


@pytest.mark.parametrize("factor", [light_of, shadow_of])
def test_light_is_a_factor_that_varies_over_the_picture(factor):
    rng = np.random.default_rng(1)
    found = [factor(SHAPE, rng) for _ in range(20)]
    assert all(f.shape == SHAPE and f.min() > 0 and f.max() <= 1.001 for f in found)
    assert any(np.ptp(f) > 0.2 for f in found)


def test_grain_and_what_is_behind_a_sheet_have_the_size_of_the_picture():
    rng = np.random.default_rng(2)
    assert abs(grain_of(SHAPE, rng).mean()) < 0.5
    for scene in ("table", "note"):
        assert np.broadcast_shapes(surroundings(scene, 200.0, SHAPE, rng).shape, SHAPE) == SHAPE
        sheet = sheet_of(scene, (40.0, 30.0, 70.0, 60.0), SHAPE, rng)
        assert sheet[45, 55] == 1
        assert sheet.min() == 0


def test_edges_of_paper_leave_the_digit_free():
    rng = np.random.default_rng(3)
    for _ in range(20):
        page = np.full(SHAPE, 240, np.float32)
        add_edges(page, 240.0, (40, 30, 70, 60), rng)
        assert (page[30:60, 40:70] == 240).all()
