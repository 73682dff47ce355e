import dataclasses

import pytest
import torch

from inkdigits.data.mnist import Digits, load_splits
from inkdigits.errors import TrainingError
from inkdigits.ink.normalize import standardise
from inkdigits.model.networks import DigitNet, MNISTClassifier
from inkdigits.training import checkpoint as training_state
from inkdigits.training import fit as train
from inkdigits.training.checkpoint import Epoch, TrainConfig, TrainingState, weights_digest
from inkdigits.training.fit import fit
from inkdigits.types import NO_DIGIT

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    network="MNISTClassifier", epochs=3, batch_size=90, learning_rate=3e-3, ema_decay=0.9
)


@pytest.fixture(scope="module")
def splits(small_mnist):
    return load_splits(small_mnist)


@pytest.fixture(scope="module")
def result(splits):
    return fit(splits.train, splits.validation, CONFIG, CPU)


def test_model_has_the_specified_layers_and_parameters():
    model = MNISTClassifier()
    assert sum(p.numel() for p in model.parameters()) == 1_200_074
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes == {
        "conv1.weight": (32, 1, 3, 3),
        "conv1.bias": (32,),
        "bn1.weight": (32,),
        "bn1.bias": (32,),
        "conv2.weight": (64, 32, 3, 3),
        "conv2.bias": (64,),
        "bn2.weight": (64,),
        "bn2.bias": (64,),
        "fc1.weight": (128, 9216),
        "fc1.bias": (128,),
        "fc2.weight": (10, 128),
        "fc2.bias": (10,),
    }
    assert (model.dropout1.p, model.dropout2.p) == (0.25, 0.5)
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_pooling_before_relu_answers_like_relu_before_pooling():
    torch.manual_seed(0)
    model = MNISTClassifier().eval()
    x = torch.randn(4, 1, 28, 28)
    y = model.relu(model.bn1(model.conv1(x)))
    y = model.pool(model.relu(model.bn2(model.conv2(y)))).flatten(1)
    assert torch.equal(model(x), model.fc2(model.relu(model.fc1(y))))


def test_torch_and_numpy_standardise_alike(splits):
    inks = splits.test.inks[:20]
    assert torch.allclose(
        train.standardise(inks), torch.from_numpy(standardise(inks.numpy())), atol=1e-5
    )


def test_loss_falls_and_digits_are_learned(result):
    losses = [epoch.train_loss for epoch in result.history]
    assert losses[-1] < 0.6 * losses[0]
    assert result.history[-1].validation_accuracy > 0.7


def test_weights_are_those_of_the_epoch_with_the_lowest_validation_loss(splits, result):
    losses = [epoch.validation_loss for epoch in result.history]
    assert result.kept_epoch == losses.index(min(losses)) + 1
    model = MNISTClassifier()
    model.load_state_dict(result.weights)
    answers = train.logits(model, splits.validation.inks)
    loss = train.scaled_loss(answers, splits.validation.labels)
    assert loss == pytest.approx(min(losses), abs=1e-4)


@pytest.mark.parametrize(("keep", "kept_epoch"), [("best", 2), ("last", 3)])
def test_the_lowest_loss_or_the_last_epoch_is_kept(keep, kept_epoch):
    state = TrainingState(dataclasses.replace(CONFIG, keep=keep), 1, CPU, {}, None)
    weights = []
    for epoch, loss in enumerate((0.3, 0.1, 0.2), start=1):
        for parameter in state.evaluated.parameters():
            torch.nn.init.constant_(parameter, epoch)
        state.add(Epoch(epoch, 0.5, loss, 0.9, 1e-3, 1.0))
        weights.append(state.weights())
    assert state.kept_epoch == kept_epoch
    assert torch.equal(state.kept_weights["fc2.weight"], weights[kept_epoch - 1]["fc2.weight"])


def test_keeping_any_other_epoch_is_refused():
    with pytest.raises(TrainingError, match="best or last"):
        TrainConfig(keep="first")


def test_being_too_sure_does_not_count_against_an_epoch():
    labels = torch.tensor([0, 1, 2, 0])
    answers = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [0, 1, 0]])
    assert train.scaled_loss(4 * answers, labels) == pytest.approx(
        train.scaled_loss(answers, labels), rel=0.01
    )
    plain = torch.nn.functional.cross_entropy(4 * answers, labels)
    assert train.scaled_loss(4 * answers, labels) < 0.7 * float(plain)


def test_resumed_run_ends_with_the_same_weights_bit_for_bit(splits, result, tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.pt"

    def interrupt(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(
            splits.train,
            splits.validation,
            CONFIG,
            CPU,
            checkpoint=checkpoint,
            stop_when=interrupt,
        )
    monkeypatch.setattr(training_state, "hardware", lambda: {"cpu": "another"})
    resumed = fit(splits.train, splits.validation, CONFIG, CPU, checkpoint=checkpoint, resume=True)
    assert [machine["hardware"]["cpu"] == "another" for machine in resumed.machines] == [
        False,
        True,
    ]
    assert [e.epoch for e in resumed.history] == [1, 2, 3]
    assert resumed.kept_epoch == result.kept_epoch
    for name, value in result.weights.items():
        assert torch.equal(resumed.weights[name], value), name


def test_finished_run_resumes_to_what_it_left_from_a_file_without_the_rest(
    splits, tmp_path, monkeypatch
):
    checkpoint = tmp_path / "checkpoint.pt"
    config = dataclasses.replace(CONFIG, epochs=1)
    first = fit(splits.train, splits.validation, config, CPU, checkpoint=checkpoint)
    # Little more than the weights: an optimiser and an average would be four times as much.
    assert checkpoint.stat().st_size < 1.2 * sum(w.nbytes for w in first.weights.values())
    monkeypatch.setattr(training_state, "hardware", lambda: {"cpu": "another"})
    again = fit(splits.train, splits.validation, config, CPU, checkpoint=checkpoint, resume=True)
    assert weights_digest(again.weights) == weights_digest(first.weights)
    assert again.history == first.history
    assert again.machines == first.machines


def test_resuming_with_another_configuration_is_refused_and_the_difference_named(splits, tmp_path):
    checkpoint = tmp_path / "checkpoint.pt"
    one = dataclasses.replace(CONFIG, epochs=1)
    fit(splits.train, splits.validation, one, CPU, checkpoint=checkpoint)
    other = dataclasses.replace(one, learning_rate=1e-3)
    with pytest.raises(TrainingError, match=r"config.learning_rate \(0.003 there, 0.001 here\)"):
        fit(splits.train, splits.validation, other, CPU, checkpoint=checkpoint, resume=True)
    fewer = splits.train[torch.arange(900)]
    with pytest.raises(TrainingError, match="train"):
        fit(fewer, splits.validation, one, CPU, checkpoint=checkpoint, resume=True)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint"])
def test_resuming_from_nothing_or_garbage_is_refused(splits, tmp_path, content):
    checkpoint = tmp_path / "checkpoint.pt"
    if content is not None:
        checkpoint.write_bytes(content)
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        fit(splits.train, splits.validation, CONFIG, CPU, checkpoint=checkpoint, resume=True)


def test_tensorboard_logs_are_written_and_closed(splits, tmp_path):
    one = dataclasses.replace(CONFIG, epochs=1)
    fit(splits.train, splits.validation, one, CPU, log_dir=tmp_path)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"validation_accuracy" in events.read_bytes()


def test_stop_when_ends_the_run(splits):
    stopped = fit(splits.train, splits.validation, CONFIG, CPU, stop_when=lambda _: True)
    assert stopped.stopped_early
    assert len(stopped.history) == 1


def test_stop_when_can_end_a_run_within_an_epoch(splits):
    seen = []

    def second(figures):
        seen.append(figures)
        return len(seen) == 2

    ended = fit(splits.train, splits.validation, CONFIG, CPU, validate_every=1, stop_when=second)
    assert ended.stopped_early
    assert len(seen) == 2
    assert len(ended.history) == 1


def test_dropout_can_be_set_and_changes_the_run(splits):
    one = dataclasses.replace(CONFIG, epochs=1)
    own = fit(splits.train, splits.validation, one, CPU)
    none = fit(splits.train, splits.validation, dataclasses.replace(one, dropout=0.0), CPU)
    assert none.history[0].train_loss != own.history[0].train_loss
    assert not torch.equal(none.weights["fc2.weight"], own.weights["fc2.weight"])


def test_run_can_start_from_earlier_weights(splits, result):
    one = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-4)
    further = fit(splits.train, splits.validation, one, CPU, initial=result.weights)
    assert further.history[0].train_loss < result.history[0].train_loss
    first = torch.zeros_like(result.weights["fc2.bias"])
    other = {**result.weights, "fc2.bias": first}
    assert weights_digest(other) != weights_digest(result.weights)


def test_teachers_pull_the_answers_towards_their_own(splits, result):
    """Taught by a network that knows only threes, nearly everything is read as a three."""
    teacher = MNISTClassifier()
    torch.nn.init.zeros_(teacher.fc2.weight)
    with torch.no_grad():
        teacher.fc2.bias.copy_(10.0 * torch.eye(10)[3])
    taught = dataclasses.replace(CONFIG, distillation=1.0)
    weights = fit(splits.train, splits.validation, taught, CPU, teachers=[teacher]).weights
    student = MNISTClassifier()
    student.load_state_dict(weights)
    read = train.logits(student, splits.validation.inks).argmax(1)
    assert (read == 3).float().mean() > 0.9


def test_distance_from_the_teachers_is_zero_where_the_answers_agree():
    config = dataclasses.replace(CONFIG, distillation=1.0)
    output = torch.tensor([[4.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    labels = torch.tensor([0, 1])
    same = train._loss(output, labels, [output + 7.0], config)
    other = train._loss(output, labels, [-output], config)
    assert float(same) == pytest.approx(0.0, abs=1e-6)
    softness = config.distillation_temperature
    p, q = (-output / softness).softmax(1), (output / softness).softmax(1)
    by_hand = softness**2 * (p * (p / q).log()).sum(1).mean()
    assert float(other) == pytest.approx(float(by_hand), rel=1e-5)


def test_teachers_say_too_that_there_is_no_digit():
    """Adding 7 to each of the ten logits changes no digit's share, and the odds of none."""
    config = dataclasses.replace(CONFIG, distillation=1.0, others=0.5)
    output, labels = torch.zeros(2, 10), torch.tensor([3, NO_DIGIT])
    assert float(train._loss(output, labels, [output], config)) == pytest.approx(0.0, abs=1e-6)
    assert float(train._loss(output, labels, [output + 7.0], config)) > 0.1


def test_share_without_teachers_and_teachers_without_a_share_are_refused(splits):
    with pytest.raises(TrainingError, match=r"0\.5 with 0 teachers"):
        fit(splits.train, splits.validation, dataclasses.replace(CONFIG, distillation=0.5), CPU)
    with pytest.raises(TrainingError, match=r"0\.0 with 1 teachers"):
        fit(splits.train, splits.validation, CONFIG, CPU, teachers=[MNISTClassifier()])


def test_digitnet_is_small_enough_and_trains_in_the_same_way(splits):
    model = DigitNet()
    assert sum(p.numel() for p in model.parameters()) == 881_194
    assert model.features(torch.zeros(2, 1, 28, 28)).shape == (2, 128)
    config = dataclasses.replace(CONFIG, network="DigitNet", epochs=2, dropout=0.1)
    fitted = fit(splits.train, splits.validation, config, CPU)
    assert fitted.history[1].train_loss < fitted.history[0].train_loss
    DigitNet().load_state_dict(fitted.weights)


def noise(n):
    generator = torch.Generator().manual_seed(5)
    inks = torch.randint(0, 256, (n, 28, 28), generator=generator, dtype=torch.uint8)
    return Digits(inks, torch.full((n,), NO_DIGIT))


def test_pictures_without_a_digit_get_a_high_energy_and_digits_a_low_one(splits):
    some = splits.train[torch.arange(200)]
    mixed = Digits(
        torch.cat([some.inks, noise(200).inks]), torch.cat([some.labels, noise(200).labels])
    )
    config = dataclasses.replace(CONFIG, synthetic=0.2, others=0.3, epochs=6)
    assert config.mixture == (45, 18, 27)
    weights = fit(splits.train, splits.validation, config, CPU, synthetic=mixed).weights
    model = MNISTClassifier()
    model.load_state_dict(weights)
    digits = train.logits(model, splits.validation.inks).logsumexp(1)
    others = train.logits(model, noise(60).inks).logsumexp(1)
    assert digits.median() > 1 > -1 > others.median()


def test_eleventh_logit_is_zero_and_counts_only_where_there_are_others():
    output, labels = torch.tensor([[2.0, -1.0], [0.5, 0.0]]), torch.tensor([0, NO_DIGIT])
    config = dataclasses.replace(CONFIG, others=0.5)
    by_hand = -torch.stack(
        [output[0, 0] - output[0].exp().sum().add(1).log(), -output[1].exp().sum().add(1).log()]
    ).mean()
    assert float(train._loss(output, labels, [], config)) == pytest.approx(float(by_hand))
    plain = train._loss(output[:1], labels[:1], [], CONFIG)
    assert float(plain) == pytest.approx(float(output[0].exp().sum().log() - output[0, 0]))


def test_share_of_synthetic_pictures_without_any_is_refused(splits):
    config = dataclasses.replace(CONFIG, others=0.5)
    with pytest.raises(TrainingError, match="synthetic pictures without one a batch are wanted"):
        fit(splits.train, splits.validation, config, CPU)


def test_without_moving_average_the_weights_themselves_are_kept(splits):
    plain = dataclasses.replace(CONFIG, epochs=1, ema_decay=0.0)
    weights = fit(splits.train, splits.validation, plain, CPU).weights
    MNISTClassifier().load_state_dict(weights)


def test_seed_reproduces_a_run_and_another_differs(splits, result):
    one = dataclasses.replace(CONFIG, epochs=1)
    first = fit(splits.train, splits.validation, one, CPU).weights["fc2.weight"]
    again = fit(splits.train, splits.validation, one, CPU).weights["fc2.weight"]
    other = fit(splits.train, splits.validation, dataclasses.replace(one, seed=1), CPU)
    assert torch.equal(first, again)
    assert not torch.equal(first, other.weights["fc2.weight"])


def test_too_few_pictures_for_a_batch_is_an_error(splits):
    few = splits.train[torch.arange(20)]
    with pytest.raises(TrainingError, match="20 training pictures"):
        fit(few, splits.validation, CONFIG, CPU)


def test_loss_that_is_not_finite_is_an_error(splits, monkeypatch):
    monkeypatch.setattr(train, "MEAN", float("nan"))
    with pytest.raises(TrainingError, match="learning rate"):
        fit(splits.train, splits.validation, dataclasses.replace(CONFIG, epochs=1), CPU)


@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 0), ("batch_size", 1), ("learning_rate", 0.0), ("warmup", 1.0)]
)
def test_setting_out_of_range_is_refused_with_its_limits(name, value):
    with pytest.raises(TrainingError, match=f"{name} is {value}; it must be between"):
        TrainConfig(**{name: value})


def test_unknown_network_is_refused():
    with pytest.raises(TrainingError, match="none of DigitNet, MNISTClassifier, TeacherNet"):
        TrainConfig(network="AlexNet")
