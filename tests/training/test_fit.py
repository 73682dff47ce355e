from dataclasses import replace

import pytest
import torch
from support.training import CONFIG, ONE_EPOCH, fit_here, noise

from inkdigits.data.mnist import Digits
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import standardise
from inkdigits.training import fit as fit_module
from inkdigits.training.export import network_of
from inkdigits.training.fit import FitInputs, cross_entropy, logits, scaled_loss
from inkdigits.types import NO_DIGIT


def test_torch_and_numpy_standardise_alike(splits):
    inks = splits.test.inks[:20]
    expected = torch.from_numpy(standardise(inks.numpy()))
    assert torch.allclose(fit_module.standardise(inks), expected, atol=1e-5)


def test_loss_falls_and_digits_are_learned(fitted):
    losses = [epoch.train_loss for epoch in fitted.history]
    assert losses[-1] < 0.6 * losses[0]
    assert fitted.history[-1].validation_accuracy > 0.7


def test_overconfidence_does_not_count_against_an_epoch():
    labels = torch.tensor([0, 1, 2, 0])
    output = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 1, 0]])
    loss = scaled_loss(4 * output, labels)
    assert loss == pytest.approx(scaled_loss(output, labels), rel=0.01)
    assert loss < 0.7 * float(torch.nn.functional.cross_entropy(4 * output, labels))


def test_seed_reproduces_a_run_and_seed_and_dropout_change_it(few):
    def trained(**changes):
        return fit_here(few, replace(ONE_EPOCH, **changes)).weights["fc2.weight"]

    first = trained()
    assert torch.equal(first, trained())
    assert not torch.equal(first, trained(seed=1))
    assert not torch.equal(first, trained(dropout=0.0))


def test_run_can_start_from_earlier_weights(inputs, fitted):
    start = replace(inputs, initial=fitted.weights)
    further = fit_here(start, replace(ONE_EPOCH, learning_rate=1e-4))
    assert further.history[0].train_loss < fitted.history[0].train_loss


def test_eleventh_logit_is_zero_and_counts_only_where_there_are_others():
    output, labels = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([0, NO_DIGIT])
    by_hand = (output.exp().sum(1).add(1).log().sum() - output[0, 0]) / 2
    assert float(cross_entropy(output, labels, others=True)) == pytest.approx(float(by_hand))
    plain = float(cross_entropy(output[:1], labels[:1]))
    assert plain == pytest.approx(float(output[0].exp().sum().log() - output[0, 0]))


def test_digitnet_trains_in_the_same_way_and_without_a_moving_average(few):
    config = replace(CONFIG, network="DigitNet", epochs=2, dropout=0.1, ema_decay=0.0)
    fitted = fit_here(few, config)
    assert fitted.history[1].train_loss < fitted.history[0].train_loss
    assert type(network_of(fitted.weights)).__name__ == "DigitNet"


def test_pictures_without_a_digit_get_a_high_energy_and_digits_a_low_one(inputs):
    some, others = inputs.train[torch.arange(200)], noise(200)
    mixed = Digits(torch.cat([some.inks, others.inks]), torch.cat([some.labels, others.labels]))
    config = replace(CONFIG, synthetic=0.2, others=0.3)
    weights = fit_here(FitInputs(inputs.train, inputs.validation, mixed), config).weights
    model = network_of(weights)
    digits = logits(model, inputs.validation.inks).logsumexp(1)
    assert digits.median() > 1 > -1 > logits(model, noise(60).inks).logsumexp(1).median()


def test_loss_that_is_not_finite_is_an_error(few, monkeypatch):
    monkeypatch.setattr(fit_module, "MEAN", float("nan"))
    with pytest.raises(TrainingError, match="learning rate"):
        fit_here(few, ONE_EPOCH)
