from dataclasses import replace

import pytest
import torch
from support.training import CONFIG, noise

from inkdigits.errors import TrainingError
from inkdigits.training.loader import Loader
from inkdigits.types import NO_DIGIT

CPU = torch.device("cpu")


def test_each_batch_has_its_shares_and_an_epoch_is_reproduced_by_its_seed(splits):
    config = replace(CONFIG, others=0.5)
    loader = Loader(splits.train, noise(60), config, CPU)
    assert loader.steps == len(splits.train) // 45
    batches = list(loader.batches(3))
    assert len(batches) == loader.steps
    for pictures, labels in batches:
        assert (pictures.shape, int((labels == NO_DIGIT).sum())) == ((90, 1, 28, 28), 45)
    again, other = (next(loader.batches(epoch))[0] for epoch in (3, 4))
    assert (batches[0][0].equal(again), again.equal(other)) == (True, False)


def test_too_few_pictures_for_a_batch_or_a_share_of_it_is_an_error(splits):
    with pytest.raises(TrainingError, match="20 training pictures do not fill one batch of 90"):
        Loader(splits.train[torch.arange(20)], None, CONFIG, CPU)
    with pytest.raises(TrainingError, match="45 synthetic pictures without a digit"):
        Loader(splits.train, None, replace(CONFIG, others=0.5), CPU)
