import numpy as np

from inkdigits.data.pictures.cut_numbers import cut_number
from inkdigits.data.pictures.numbers import WrittenDigits
from inkdigits.model.artifact import SEGMENTER, read_network
from inkdigits.model.backends import onnx_function
from inkdigits.types import NO_DIGIT

FIND_INK = onnx_function(read_network(SEGMENTER), threads=1)


def test_cuts_give_whole_digits_as_written_and_pairs_as_none(digits):
    inks, labels = digits
    of_two = np.isin(labels, (0, 7))
    given = WrittenDigits(inks[of_two], labels[of_two].astype(np.int64))
    made = [cut_number(given, FIND_INK, np.random.default_rng(seed)) for seed in range(12)]
    found = np.concatenate([ink for ink, _ in made])
    known = np.concatenate([label for _, label in made])
    assert set(known.tolist()) == {NO_DIGIT, 0, 7}
    assert found.dtype == np.uint8
    assert found.any(axis=(1, 2)).all()
    # A whole zero is empty in its middle, a seven is not wide there.
    zeros = found[known == 0].mean(axis=0)
    assert zeros[14, 14] < 0.6 * zeros[14].max()
    again = cut_number(given, FIND_INK, np.random.default_rng(0))
    assert np.array_equal(again[0], made[0][0])
