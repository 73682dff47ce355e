import numpy as np
from PIL import Image
from support.pictures import draw_five, drawn_ink

from inkdigits.ink.select import find_dirt, select_digit


def test_the_bar_of_a_five_stays_and_specks_do_not():
    clean = drawn_ink(draw_five)
    dirty = clean.copy()
    dirty[5:8, 110:113] = dirty[120:122, 10:12] = 200
    kept, dirt = select_digit(dirty, dirty), find_dirt(dirty, with_lines=False)
    assert kept[clean > 100].all()
    assert not np.r_[kept[:15], kept[110:]].any()
    assert dirt[[6, 121], [111, 11]].all()
    assert not dirt[clean > 0].any()


def test_nothing_is_dirt_in_a_broken_digit_with_faint_bits_nor_in_two_digits():
    faint = drawn_ink(draw_five)
    faint[66:72, 30:36] = 40
    ring = drawn_ink(lambda draw: draw.ellipse([10, 40, 40, 90], outline=255, width=6))
    stroke = drawn_ink(lambda draw: draw.line([(95, 40), (90, 95)], fill=255, width=6))
    both = np.maximum(ring, stroke)
    assert select_digit(both, both)[both > 100].all()
    for ink in (drawn_ink(draw_five), faint, both):
        assert find_dirt(ink, with_lines=False) is None


def test_a_frame_and_a_table_beside_the_page_are_removed_and_a_zero_around_a_speck_stays():
    five = drawn_ink(draw_five)
    framed = drawn_ink(
        lambda draw: (draw_five(draw), draw.rectangle([25, 12, 105, 112], outline=255))
    )
    beside = five.copy()
    beside[:, 118:] = 230
    for ink, removed in ((framed, np.s_[:12]), (framed, np.s_[114:]), (beside, np.s_[:, 110:])):
        kept = select_digit(ink, ink)
        assert kept[five > 100].all()
        assert not kept[removed].any()
    ring = drawn_ink(lambda draw: draw.ellipse([30, 20, 90, 110], outline=255, width=6))
    ring[63:66, 58:61] = 200
    assert select_digit(ring, ring)[20:110, 60].any()


def test_neither_a_soft_cloud_nor_noise_is_ink():
    cloud = Image.fromarray(drawn_ink(lambda draw: draw.ellipse([40, 40, 80, 80], fill=60)))
    soft = np.asarray(cloud.resize((9, 9), Image.Resampling.BOX).resize((128, 128)))
    assert select_digit(soft, soft) is None
    noise = np.random.default_rng(3).normal(0, 6, (128, 128)).astype(np.float32)
    assert select_digit(noise, noise) is None
