import numpy as np
import pytest

from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.writing import inner_box, write

SHAPE = (120, 200)


@pytest.fixture(scope="module")
def sources(digits) -> Sources:
    return Sources(*digits)


@pytest.mark.parametrize(
    ("kind", "least", "most"), [("one", 1, 1), ("several", 1, 10), ("pair", 1, 4)]
)
def test_boxes_say_where_each_digit_is(sources, kind, least, most):
    generator = np.random.default_rng(9)
    for _ in range(15):
        written = write(kind, SHAPE, 60.0, generator, sources)
        assert least <= len(written.boxes) <= most
        outside = written.ink.copy()
        for left, top, right, bottom in written.boxes:
            assert 0 <= left < right <= SHAPE[1]
            assert 0 <= top < bottom <= SHAPE[0]
            outside[int(top) : int(bottom), int(left) : int(right)] = 0
        if kind != "several":  # which has signs too
            assert not outside.any()


def test_the_second_of_a_pair_may_be_fainter_and_cut_digits_touch_the_edge(sources):
    generator = np.random.default_rng(10)
    pairs = [write("pair", SHAPE, 60.0, generator, sources) for _ in range(20)]
    assert any((w.darkness < 0.8 * w.ink)[w.ink > 0.9].any() for w in pairs)
    touching = 0
    for _ in range(20):
        ink = write("cut", SHAPE, 60.0, generator, sources).ink
        touching += bool(np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]]).any())
    assert touching > 14


def test_an_empty_picture_has_a_box_where_a_digit_could_be(sources):
    written = write("empty", SHAPE, 60.0, np.random.default_rng(1), sources)
    assert not written.ink.any()
    left, top, right, bottom = inner_box(written)
    assert 0 < left < right < SHAPE[1]
    assert 0 < top < bottom < SHAPE[0]


def test_ink_beyond_the_picture_is_left_out(sources):
    generator = np.random.default_rng(0)
    for _ in range(150):
        assert write("several", (12, 400), 60.0, generator, sources).ink.shape == (12, 400)
