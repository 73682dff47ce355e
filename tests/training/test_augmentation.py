from dataclasses import replace

import pytest
import torch

from inkdigits.training.augmentation import AugmentationConfig, augment

KINDS = ("rotation", "scale", "shear", "translation", "elastic", "thickness", "contrast")


@pytest.fixture
def batch(digits):
    return torch.from_numpy(digits[0][:64]).unsqueeze(1).float() / 255


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def alone(**changes):
    return replace(AugmentationConfig.none(), **changes)


def test_no_augmentation_leaves_pictures_as_they_are(batch):
    assert torch.allclose(augment(batch, AugmentationConfig.none(), generator()), batch, atol=1e-5)


def test_batch_stays_a_batch_of_ink(batch):
    changed = augment(batch, AugmentationConfig(), generator())
    assert (changed.shape, changed.dtype) == (batch.shape, torch.float32)
    assert 0 <= changed.min() < changed.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_the_picture_and_each_picture_draws_its_own(batch, kind):
    only = alone(**{kind: getattr(AugmentationConfig(), kind)})
    assert (augment(batch, only, generator()) - batch).abs().mean() > 0.002
    copies = batch[:1].expand(16, -1, -1, -1)
    changed = augment(copies, only, generator())
    assert len({tuple(c.flatten().tolist()) for c in changed}) == 16


def test_seed_reproduces_a_batch(batch):
    config = AugmentationConfig()
    assert augment(batch, config, generator(3)).equal(augment(batch, config, generator(3)))
    assert not augment(batch, config, generator(3)).equal(augment(batch, config, generator(4)))


def test_translation_moves_ink_by_whole_pixels_up_to_its_limit():
    dot = torch.zeros(200, 1, 28, 28)
    dot[:, :, 14, 14] = 1
    moved = augment(dot, alone(translation=3.0), generator()).flatten(1).argmax(1)
    for place in (moved // 28, moved % 28):
        assert (place - 14).abs().max() == 3


def test_thickness_makes_strokes_both_thicker_and_thinner(batch):
    changed = augment(batch, alone(thickness=0.8), generator())
    ratio = changed.sum((1, 2, 3)) / batch.sum((1, 2, 3))
    assert ratio.max() > 1.3
    assert 0.3 < ratio.min() < 0.9  # no stroke is wiped out


def test_rotation_turns_by_up_to_its_limit_either_way():
    bar = torch.zeros(300, 1, 28, 28)
    bar[:, :, 4:24, 13:15] = 1
    turned = augment(bar, alone(rotation=20.0), generator())
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    covariance = (turned[:, 0] * x * y).sum((1, 2))
    spread = (turned[:, 0] * y * y).sum((1, 2)) - (turned[:, 0] * x * x).sum((1, 2))
    angles = torch.rad2deg(0.5 * torch.atan2(2 * covariance, spread))
    assert angles.abs().max() == pytest.approx(20, abs=1.5)
    assert angles.min() < -15 < 15 < angles.max()
