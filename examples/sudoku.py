"""Reads a photographed Sudoku: finds its corners, straightens it, and reads the 81 cells."""

import numpy as np
from PIL import Image, ImageFilter

import inkdigits
from inkdigits.data.pictures.foreground import draw_digits
from inkdigits.data.pictures.numbers import WrittenDigits, write_table


def perspective(corners: np.ndarray, of: np.ndarray) -> list[float]:
    """Return Pillow's eight numbers, which map four points of the result to four of the picture."""
    rows = []
    for (x, y), (u, v) in zip(of, corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.linalg.solve(np.array(rows), corners.ravel()).tolist()


def square(size: int) -> np.ndarray:
    return np.array([(0, 0), (size, 0), (size, size), (0, size)], float)


# The photograph: a puzzle on paper, seen from the side, in light that falls off.
rng = np.random.default_rng(5)
pictures, labels = draw_digits(200, rng)
inks = np.stack([inkdigits.preprocess(p) for p in pictures[labels > 0]])
puzzle, cells = write_table(WrittenDigits(inks, labels[labels > 0]), 9, 9, rng, empty=0.6)
seen = np.array([(90, 60), (820, 110), (780, 850), (40, 790)], float)
flat = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * puzzle.shape[::-1]
photo = Image.fromarray(puzzle).transform(
    (900, 900), Image.Transform.PERSPECTIVE, perspective(flat, seen), fillcolor=235
)
light = np.linspace(1, 0.6, 900)
photo = Image.fromarray((np.asarray(photo) * light[:, None]).astype(np.uint8))

# The grid's corners are the dark points that are farthest along the two diagonals.
around = np.asarray(photo.filter(ImageFilter.BoxBlur(25)), float)
y, x = np.nonzero(np.asarray(photo) < 0.75 * around)
ends = [(x + y).argmin(), (x - y).argmax(), (x + y).argmax(), (x - y).argmin()]
corners = np.stack([x[ends], y[ends]], axis=1).astype(float)
upright = photo.transform(
    (540, 540), Image.Transform.PERSPECTIVE, perspective(corners, square(540)), resample=2
)

boxes = [(60 * column, 60 * row, 60, 60) for row in range(9) for column in range(9)]
found = inkdigits.load().read_regions(upright, boxes, length=(1, 1))
texts = ["." if one.decision == "reject" else one.text for one in found]
for row in range(9):
    print(" ".join(texts[9 * row : 9 * row + 9]))
right = sum(text.strip(".") == true for text, (_, true) in zip(texts, cells, strict=True))
print(f"{right} of 81 cells are right")
