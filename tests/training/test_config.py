import pytest

from inkdigits.errors import TrainingError
from inkdigits.training.config import TrainConfig


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs is 0; it must be between 1 and"),
        ("batch_size", 1, "batch_size is 1; it must be between"),
        ("learning_rate", 0.0, "learning_rate is 0.0; it must be between"),
        ("warmup", 1.0, "warmup is 1.0; it must be between"),
        ("keep", "first", "one of best, last"),
        ("network", "AlexNet", "one of DigitNet, MNISTClassifier"),
    ],
)
def test_setting_out_of_range_is_rejected_with_its_limits(name, value, message):
    with pytest.raises(TrainingError, match=message):
        TrainConfig(**{name: value})


def test_batch_is_a_mixture_by_the_configured_shares():
    assert TrainConfig(batch_size=90, synthetic=0.2, others=0.3).mixture == (45, 18, 27)
