"""A larger network that only trains the small one; it is never served.

It sees the same standardised ink and knows the same ten digits. Its answers on changed pictures
are what MNISTClassifier is taught beside the labels (``TrainConfig.distillation``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class _Block(nn.Module):
    """Two 3x3 convolutions around which the input is carried (He et al., arXiv:1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        inner = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(x + self.bn2(self.conv2(inner)))
        return result


class TeacherNet(nn.Module):
    """A small residual network of nine layers, about four times MNISTClassifier's arithmetic.

    Input: (B, 1, 28, 28) float32, standardised ink. Output: (B, 10) float32 logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),  # (B, 32, 28, 28)
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),  # (B, 64, 14, 14)
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.block1 = _Block(64)
        self.down = nn.Sequential(
            nn.Conv2d(64, 128, 3, stride=2, padding=1, bias=False),  # (B, 128, 7, 7)
            nn.BatchNorm2d(128),
            nn.ReLU(),
        )
        self.block2 = _Block(128)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(2 * 128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) for a batch of standardised ink (B, 1, 28, 28)."""
        x = self.block2(self.down(self.block1(self.stem(x))))  # (B, 128, 7, 7)
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3))], dim=1)  # (B, 256)
        logits: Tensor = self.fc(self.dropout(pooled))
        return logits
