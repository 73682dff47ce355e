import numpy as np
import pytest

import inkdigits
from inkdigits.data.hands import OPTDIGITS, PENDIGITS, load_hands
from inkdigits.data.pictures.foreground import Sources
from inkdigits.data.pictures.pairs import make_pair
from inkdigits.errors import DataError

UNIPEN = """.INCLUDE        dene.doc

.SEGMENT DIGIT    {n} ? "7"
.COMMENT 7 {writer}  224
.PEN_DOWN
 10  90
 60  90
 30  10
.PEN_UP
.DT 100
.PEN_DOWN
 20  50
 50  50
.PEN_UP
.DT 100

"""


@pytest.fixture
def root(tmp_path):
    """Ten digits as strokes by ten writers, and ten bitmaps."""
    for name in (PENDIGITS, OPTDIGITS):
        (tmp_path / name).parent.mkdir()
    strokes = "".join(UNIPEN.format(n=n, writer=n + 1) for n in range(10))
    (tmp_path / PENDIGITS).write_text(strokes)
    one = "\n".join(["0" * 15 + "11" + "0" * 15] * 32)
    (tmp_path / OPTDIGITS).write_text("10\n" + f"{one}\n 1\n" * 10)
    return tmp_path


def test_strokes_and_bitmaps_are_read_and_calibration_has_writers_of_its_own(root):
    train, calibration = (load_hands(root, part) for part in ("train", "calibration"))
    assert [len(train), len(calibration)] == [8 + 8, 2 + 2]
    assert not set(train.stroke_writers.tolist()) & set(calibration.stroke_writers.tolist())
    assert set(train.stroke_labels.tolist()) == {7}
    assert set(train.bitmap_labels.tolist()) == {1}
    bar, cross = train.strokes[0]
    assert bar.tolist() == [[10, -90], [60, -90], [30, -10]]  # y goes down, as in a picture
    assert cross.shape == (2, 2)
    assert train.bitmaps[0].sum() == 64
    assert set(train.sha256) == {PENDIGITS, OPTDIGITS}


def test_digits_of_both_collections_are_drawn_so_that_they_can_be_read(root):
    sources, rng = Sources(hands=load_hands(root, "train"), styles=False), np.random.default_rng(0)
    pairs = [make_pair(rng, sources, "one", "canvas") for _ in range(60)]
    labels = [pair.digits[0] for pair in pairs]
    assert set(labels) == {1, 7}
    read = [p.digit for p in inkdigits.load().predict_batch([pair.picture for pair in pairs])]
    assert np.mean(np.array(read) == labels) > 0.85


def test_missing_files_are_no_error_and_damaged_ones_are(root):
    (root / PENDIGITS).write_text(".SEGMENT\n.COMMENT seven\n")
    with pytest.raises(DataError, match="get it again from UCI"):
        load_hands(root, "train")
    (root / PENDIGITS).unlink()
    assert load_hands(root, "train").strokes == ()


def test_digits_whose_label_is_plainly_wrong_are_left_out(root):
    strokes = (root / PENDIGITS).read_text()
    wrong = strokes.replace(".COMMENT 7 1  224", ".COMMENT 3 30  79", 1)
    (root / PENDIGITS).write_text(wrong)
    assert sum(len(load_hands(root, part).strokes) for part in ("train", "calibration")) == 9


def test_one_digit_is_of_either_collection(root):
    hands = load_hands(root, "train")
    ones = [hands.one(i) for i in range(len(hands))]
    assert [len(one.strokes) for one in ones] == [1] * 8 + [0] * 8
    assert all(len(one) == 1 for one in ones)
