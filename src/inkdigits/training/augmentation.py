"""Augmentation: whole batches are changed as handwriting varies, each picture by its own draw.

The batch stays on its device, and nothing loops over pictures. All randomness comes from the
generator that is passed in, so a seed reproduces a batch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """The largest change of each kind; a picture draws uniformly between none and that."""

    rotation: float = 14.0  # degrees, either way
    scale: float = 0.14  # each axis by itself, between 1 - scale and 1 + scale
    shear: float = 0.2  # horizontal shift per pixel of height, either way
    translation: float = 1.6  # pixels, each axis, either way
    # Standard deviation in pixels of a smooth random displacement field, after Simard, Steinkraus
    # and Platt, "Best practices for convolutional neural networks applied to visual document
    # analysis", ICDAR 2003, p. 958-963.
    elastic: float = 0.75
    thickness: float = 0.6  # share of the way to the 3x3 dilation or erosion of the stroke
    contrast: float = 0.4  # largest absolute log of the gamma applied to the ink

    @classmethod
    def none(cls) -> AugmentationConfig:
        """Return the configuration that changes nothing."""
        return cls().scaled(0.0)

    def scaled(self, strength: float) -> AugmentationConfig:
        """Return every change times ``strength``; 0 changes nothing."""
        return AugmentationConfig(**{name: strength * v for name, v in asdict(self).items()})


def augment(batch: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Return a changed copy of each picture (B, 1, H, W), float32 from 0 to 1, which is ink.

    The generator is on the batch's device.

    >>> blank = torch.zeros(2, 1, 28, 28)
    >>> augment(blank, AugmentationConfig(), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 28, 28])
    """
    batch = _change_thickness(batch, config.thickness, generator)
    batch = _warp(batch, config, generator)
    return _change_contrast(batch, config.contrast, generator)


def _uniform(n: int, limit: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return (n,) numbers, uniform in -limit to limit."""
    draw = torch.rand(n, generator=generator, device=like.device, dtype=like.dtype)
    return (2.0 * draw - 1.0) * limit


def _change_thickness(batch: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    amount = _uniform(len(batch), limit, batch, generator).view(-1, 1, 1, 1)
    if not limit:
        return batch
    thicker = F.max_pool2d(batch, 3, stride=1, padding=1)
    thinner = -F.max_pool2d(-batch, 3, stride=1, padding=1)
    # Erosion can wipe out a stroke of one or two pixels, so it goes half as far.
    return torch.where(
        amount > 0, torch.lerp(batch, thicker, amount), torch.lerp(batch, thinner, -0.5 * amount)
    )


def _warp(batch: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Change a batch affinely and elastically in one resampling, which blurs the ink once."""
    n, _, height, width = batch.shape
    angle = _uniform(n, math.radians(config.rotation), batch, generator)
    shear = _uniform(n, config.shear, batch, generator)
    scale_x = 1.0 + _uniform(n, config.scale, batch, generator)
    scale_y = 1.0 + _uniform(n, config.scale, batch, generator)
    # affine_grid's coordinates run from -1 to 1 over the picture, hence 2 / size per pixel.
    shift_x = _uniform(n, 2.0 * config.translation / width, batch, generator)
    shift_y = _uniform(n, 2.0 * config.translation / height, batch, generator)
    cos, sin = angle.cos(), angle.sin()
    # The grid says where each output pixel comes from: rotate, then shear, then scale, inverted.
    theta = torch.stack(
        [
            torch.stack([cos / scale_x, (-sin + shear * cos) / scale_x, shift_x], dim=1),
            torch.stack([sin / scale_y, (cos + shear * sin) / scale_y, shift_y], dim=1),
        ],
        dim=1,
    )  # (B, 2, 3)
    grid = F.affine_grid(theta, list(batch.shape), align_corners=False)  # (B, H, W, 2)
    # A coarse 6x6 field, interpolated, is smooth at the scale of a stroke and cheap.
    strength = 0.5 * (1.0 + _uniform(n, 1.0, batch, generator)).view(-1, 1, 1, 1)
    coarse = torch.randn((n, 2, 6, 6), generator=generator, device=batch.device, dtype=batch.dtype)
    field = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    grid = grid + (field * strength * (2.0 * config.elastic / width)).permute(0, 2, 3, 1)
    warped = F.grid_sample(batch, grid, mode="bicubic", align_corners=False)
    return warped.clamp(0.0, 1.0)  # bicubic overshoots


def _change_contrast(batch: Tensor, limit: float, generator: torch.Generator) -> Tensor:
    gamma = _uniform(len(batch), limit, batch, generator).exp().view(-1, 1, 1, 1)
    return batch.pow(gamma)
