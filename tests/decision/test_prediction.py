import pytest

from inkdigits.decision.prediction import Reader
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
