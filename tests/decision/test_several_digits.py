import numpy as np
from scipy import ndimage

import inkdigits
from inkdigits.decision.several_digits import halves
from inkdigits.ink.normalize import preprocess


def side_by_side(left, right):
    """Return two digits without their margins, 4 pixels apart and on one line."""
    boxes = [ink[ndimage.find_objects((ink > 0).astype(int))[0]] for ink in (left, right)]
    height = max(len(box) for box in boxes)
    first, second = (np.pad(box, ((height - len(box), 0), (0, 0))) for box in boxes)
    return np.pad(np.concatenate([first, np.zeros((height, 4), np.uint8), second], axis=1), 6)


def test_two_digits_are_cut_into_their_halves(digits):
    inks, labels = digits
    left, right = inks[labels == 3][0], inks[labels == 5][0]
    found = halves(preprocess(side_by_side(left, right)))
    assert (found.shape, found.dtype) == ((2, 28, 28), np.uint8)
    for half, whole in zip(found, (left, right), strict=True):
        # The pair was made smaller and the half enlarged again, so shades differ.
        overlap = np.minimum(half, whole).sum() / np.maximum(half, whole).sum()
        assert overlap > 0.5


def test_neither_a_narrow_digit_nor_a_dot_beside_a_stroke_nor_blank_ink_is_cut(digits):
    inks, labels = digits
    dotted = np.zeros((28, 28), np.uint8)
    dotted[4:24, 5:8] = dotted[4:7, 18:21] = 255
    narrow = next(ink for ink in inks[labels == 1] if ink.any(axis=0).sum() < 11)
    assert [halves(ink) for ink in (narrow, dotted, np.zeros_like(dotted))] == [None] * 3


def test_rejected_pair_is_rejected_as_several_digits(digits):
    inks, labels = digits
    reader = inkdigits.load()
    firsts = [inks[labels == d][i] for d in range(10) for i in range(4)]
    pairs = [side_by_side(a, b) for a, b in zip(firsts, firsts[7:] + firsts[:7], strict=True)]
    reasons = [[p.reason for p in reader.predict_batch(inks)] for inks in (pairs, firsts)]
    assert reasons[0].count("several_digits") >= len(pairs) // 2
    assert "several_digits" not in reasons[1]
