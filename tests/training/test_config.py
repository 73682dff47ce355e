from inkdigits.training.config import TrainConfig


def test_batch_is_a_mixture_by_the_configured_shares():
    assert TrainConfig(batch_size=90, synthetic=0.2, others=0.3).mixture == (45, 18, 27)
