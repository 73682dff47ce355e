"""Reads the marks in the cells of a sheet, and lists those that a person should check."""

import numpy as np

import inkdigits
from inkdigits.data.pictures.foreground import draw_digits
from inkdigits.data.pictures.numbers import WrittenDigits, write_table

# A scanned sheet of 8 pupils with 5 marks each, and where its cells are: left, top, width, height.
rng = np.random.default_rng(4)
pictures, labels = draw_digits(200, rng)
inks = np.stack([inkdigits.preprocess(picture) for picture in pictures])
sheet, cells = write_table(WrittenDigits(inks, labels), 8, 5, rng, empty=0.1)

reader = inkdigits.load()
marks = reader.read_regions(sheet, [box for box, _ in cells], length=(1, 1))

to_check = []
for place, mark in enumerate(marks):
    pupil, question = divmod(place, 5)
    if mark.decision == "review":
        to_check.append(f"pupil {pupil + 1}, question {question + 1}: {mark.text}?")
    shown = {"accept": mark.text, "review": f"{mark.text}?", "reject": "-"}[mark.decision]
    print(f"{shown:>4}", end="\n" if question == 4 else "")

right = sum(mark.text == text for mark, (_, text) in zip(marks, cells, strict=True))
print(f"{right} of {len(cells)} cells were read right; {len(to_check)} should be checked:")
print("\n".join(to_check))
