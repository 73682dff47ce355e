import numpy as np
import pytest

from inkdigits.data.fonts import find_fonts
from inkdigits.data.pictures import marks
from inkdigits.data.pictures.objects import lay_objects

BOX = (60.0, 40.0, 110.0, 120.0)


def page():
    return np.full((160, 180), 240, np.float32)


@pytest.mark.parametrize("name", ["print_lines", "print_pattern", "scatter_specks"])
def test_marks_change_some_of_a_page_and_stay_shades(name):
    generator = np.random.default_rng(3)
    for _ in range(10):
        surface = page()
        getattr(marks, name)(surface, 60.0, 20.0, generator)
        assert (surface != 240).any()
        assert surface.min() >= 0
        assert surface.max() <= 255


@pytest.mark.parametrize("name", ["print_boxes", "print_edge"])
def test_boxes_and_frames_cover_little_of_a_page(name):
    generator = np.random.default_rng(4)
    for _ in range(15):
        surface = page()
        arguments = (BOX, 0.0) if name == "print_boxes" else (0.0,)
        getattr(marks, name)(surface, *arguments, generator)
        assert 0 < (surface < 235).mean() < 0.6


def test_nothing_on_an_empty_page_is_one_line_as_a_1_is():
    for seed in range(60):
        surface = page()
        marks.print_boxes(surface, BOX, 0.0, np.random.default_rng(seed), is_empty=True)
        inked = surface < 235
        # Several lines, or one that leaves the page.
        sides = inked[0], inked[-1], inked[:, 0], inked[:, -1]
        runs_out = sum(bool(side.any()) for side in sides)
        rows, columns = inked.any(axis=1).sum(), inked.any(axis=0).sum()
        assert runs_out or min(rows, columns) > 0.3 * max(rows, columns)


def test_text_and_objects_mostly_leave_the_box_free():
    generator, fonts = np.random.default_rng(5), find_fonts("train")
    inside = outside = 0
    for _ in range(15):
        surface = page()
        marks.print_text(surface, BOX, 80.0, 0.0, generator, fonts)
        lay_objects(surface, BOX, generator)
        changed = surface != 240
        part = changed[40:120, 60:110].sum()
        inside, outside = inside + part, outside + changed.sum() - part
    assert outside > 10 * inside
