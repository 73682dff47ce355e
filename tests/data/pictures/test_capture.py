import numpy as np
from PIL import Image

from inkdigits.data.pictures.capture import capture, compress, turn
from inkdigits.data.pictures.writing import Writing


def test_ink_and_boxes_move_with_the_picture():
    generator = np.random.default_rng(6)
    for _ in range(20):
        ink = np.zeros((90, 120), np.float32)
        ink[30:40, 70:80] = 1
        shades = Image.fromarray((255 * (1 - ink)).astype(np.uint8))
        picture, covered, [box] = turn(shades, ink, [(70, 30, 80, 40)], generator)
        assert picture.size == covered.shape[::-1]
        rows, columns = (covered > 0.5).nonzero()
        if len(rows) == 0:
            continue
        assert np.asarray(picture)[rows, columns].mean() < 130
        assert abs((box[0] + box[2]) / 2 - columns.mean() - 0.5) < 2
        assert abs((box[1] + box[3]) / 2 - rows.mean() - 0.5) < 2


def test_captured_pictures_are_bytes_of_the_size_of_their_ink():
    generator = np.random.default_rng(7)
    for _ in range(20):
        ink = np.zeros((90, 120), np.float32)
        ink[30:60, 70:80] = 1
        written = Writing(ink, ink, [(70, 30, 80, 60)], 30.0)
        picture, covered, boxes = capture(200 - 150 * ink, written, 150.0, generator)
        assert picture.mode == "L"
        assert picture.size == covered.shape[::-1]
        assert len(boxes) == 1
    flat = np.asarray(compress(Image.new("L", (40, 20), 99), generator), dtype=int)
    assert np.abs(flat - 99).max() < 8
