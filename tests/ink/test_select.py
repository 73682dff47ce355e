import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from inkdigits.ink.components import find_blobs, grown
from inkdigits.ink.ruled_lines import erase_lines
from inkdigits.ink.select import specks, written


def drawn(draw_on) -> np.ndarray:
    """(128, 128) float32 of ink, 200 where drawn."""
    image = Image.new("L", (128, 128), 0)
    draw_on(ImageDraw.Draw(image))
    return np.asarray(image, dtype=np.float32) / 255 * 200


def five(draw) -> None:
    """Its bar stands by itself."""
    draw.line([(50, 35), (45, 60), (70, 62), (72, 85), (45, 92)], fill=255, width=6)
    draw.line([(58, 28), (82, 27)], fill=255, width=6)


def seen(ink: np.ndarray) -> np.ndarray:
    kept = written(ink, ink)
    assert kept is not None
    return kept


def naive_labels(mask: np.ndarray) -> int:
    left, n = set(map(tuple, np.argwhere(mask))), 0
    while left:
        n += 1
        queue = [left.pop()]
        while queue:
            y, x = queue.pop()
            for near in [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    queue.append(near)
    return n


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_pieces_are_those_that_a_search_finds(share):
    rng = np.random.default_rng(int(share * 10))
    for shape in [(1, 1), (1, 9), (9, 1), (17, 23)]:
        mask = rng.random(shape) < share
        ink = rng.random(shape).astype(np.float32)
        blobs = find_blobs(mask, ink)
        assert len(blobs) == naive_labels(mask)
        assert np.array_equal(blobs.number >= 0, mask)
        for i in range(len(blobs)):
            own = blobs.number == i
            rows, columns = np.nonzero(own)
            assert blobs.area[i] == own.sum()
            assert blobs.ink[i] == pytest.approx(ink[own].sum(), rel=1e-4)
            assert blobs.peak[i] == ink[own].max()
            box = (blobs.left[i], blobs.top[i], blobs.right[i], blobs.bottom[i])
            assert box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_spirals_are_one_piece():
    mask = np.zeros((41, 41), dtype=bool)
    low, high = 0, 40
    while low < high:
        mask[low, max(0, low - 2) : high + 1] = mask[low : high + 1, high] = True
        mask[high, low : high + 1] = mask[low + 2 : high + 1, low] = True
        low, high = low + 2, high - 2
    assert len(find_blobs(mask, mask.astype(np.float32))) == naive_labels(mask)


def test_the_bar_of_a_five_stays_and_specks_go():
    clean = drawn(five)
    dirty = clean.copy()
    dirty[5:8, 110:113] = dirty[120:122, 10:12] = 200
    kept = seen(dirty)
    assert kept[clean > 100].all()
    assert not kept[:15].any()
    assert not kept[110:].any()
    dirt = specks(dirty, lined=False)
    assert dirt is not None
    assert dirt[6, 111]
    assert dirt[121, 11]
    assert not dirt[clean > 0].any()


def test_nothing_is_dirt_in_a_digit_in_pieces():
    assert specks(drawn(five), lined=False) is None


def test_faint_bits_of_a_broken_stroke_are_not_dirt():
    ink = drawn(five)
    ink[66:72, 30:36] = 40
    assert specks(ink, lined=False) is None


def test_two_digits_both_stay():
    def both(draw):
        draw.ellipse([10, 40, 40, 90], outline=255, width=6)
        draw.line([(95, 40), (90, 95)], fill=255, width=6)

    ink = drawn(both)
    assert seen(ink)[ink > 100].all()
    assert specks(ink, lined=False) is None


def test_a_frame_goes_and_a_zero_around_a_speck_stays():
    ink = drawn(lambda draw: (five(draw), draw.rectangle([25, 12, 105, 112], outline=255)))
    kept = seen(ink)
    assert kept[drawn(five) > 100].all()
    assert not kept[:12].any()
    assert not kept[114:].any()
    ring = drawn(lambda draw: draw.ellipse([30, 20, 90, 110], outline=255, width=6))
    ring[63:66, 58:61] = 200
    assert seen(ring)[20:110, 60].any()


def test_a_table_beside_the_paper_goes():
    ink = drawn(five)
    ink[:, 118:] = 230
    kept = seen(ink)
    assert kept[drawn(five) > 100].all()
    assert not kept[:, 110:].any()


@pytest.mark.parametrize("slope", [0, 4, -9])
def test_printed_lines_go_and_what_crosses_them_stays(slope):
    def ruled(draw):
        for row in (22, 50, 78, 106):
            draw.line([(-1, row), (128, row + slope)], fill=120, width=1)
            draw.line([(row - slope, -1), (row, 128)], fill=120, width=1)

    lines, digit = drawn(ruled), drawn(five)
    erased = erase_lines(lines, 20.0)
    assert (erased > 20).sum() < 0.05 * (lines > 20).sum()
    assert written(lines, lines) is None
    both = erase_lines(np.maximum(lines, digit), 20.0)
    assert (both[digit > 100] > 100).mean() > 0.93
    assert seen(np.maximum(lines, digit))[digit > 100].mean() > 0.93


def test_a_one_that_does_not_reach_the_border_is_not_a_line():
    one = drawn(lambda draw: draw.line([(64, 8), (66, 119)], fill=255, width=3))
    assert erase_lines(one, 20.0) is one
    assert seen(one)[one > 100].all()


def test_a_stroke_too_thick_for_a_line_stays():
    bar = drawn(lambda draw: draw.line([(-1, 64), (128, 64)], fill=255, width=14))
    assert np.array_equal(erase_lines(bar, 20.0), bar)


def test_a_soft_cloud_is_not_ink_and_noise_is_not_either():
    cloud = drawn(lambda draw: draw.ellipse([40, 40, 80, 80], fill=60))
    soft = Image.fromarray(cloud).filter(ImageFilter.GaussianBlur(0))
    blurred = np.asarray(
        Image.fromarray(np.asarray(soft)).resize((9, 9), Image.Resampling.BOX).resize((128, 128))
    )
    assert written(blurred, blurred) is None
    noise = np.random.default_rng(3).normal(0, 6, (128, 128)).astype(np.float32)
    assert written(noise, noise) is None


def test_grown_takes_in_the_eight_neighbours():
    mask = np.zeros((5, 5), dtype=bool)
    mask[2, 2] = True
    assert grown(mask).sum() == 9
