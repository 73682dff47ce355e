import numpy as np
import pytest

from inkdigits.decision.prediction import Prediction, Reader
from inkdigits.errors import UnreadableImageError


class Counting(Reader):
    """Gives its own number for each picture, and an error for the second."""

    model_version = "v"

    def __init__(self):
        self.n = 0

    def predict(self, picture, *, risk=None):
        raise NotImplementedError

    explain = _read_fields = predict

    def _read_each(self, pictures, risk):
        for number in range(len(pictures)):
            self.n += 1
            yield UnreadableImageError("no") if number == 1 else number


def test_batch_stops_at_the_first_error_or_keeps_it_in_its_place():
    reader = Counting()
    with pytest.raises(UnreadableImageError):
        reader.predict_batch([b""] * 3)
    assert reader.n == 2
    answers = reader.predict_batch([b""] * 3, on_error="return")
    assert [type(answers[1]), *answers[::2]] == [UnreadableImageError, 0, 2]


@pytest.mark.parametrize(
    ("decision", "reason", "digit", "line"),
    [
        ("accept", None, 7, "7 (99.99 %, accept)"),
        ("reject", "not_a_digit", 8, "reject (not a digit; closest 8, 99.99 %)"),
        ("reject", "blank", None, "reject (blank)"),
    ],
)
def test_prediction_prints_on_a_line_and_claims_no_digit_when_rejected(
    decision, reason, digit, line
):
    shares = (0.0,) * 8 + (0.999999, 0.000001)
    ink = np.zeros((28, 28), np.uint8)
    read = Prediction(digit, 0.999999, shares, decision, reason, None, ink, "v", 1.0, 1.0)
    assert str(read) == line
    assert "\n" not in repr(read)
    assert read.runner_up == ((None, 0.0) if digit is None else (9, 0.000001))
