"""The network, and nothing else: it knows no data, no training and no pictures.

A batch of standardised ink goes in, a batch of logits comes out. Standardising
(preprocessing.standardise) and turning logits into calibrated probabilities
(calibration.probabilities) happen outside, once each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MNISTClassifier(nn.Module):
    """Two convolutions with batch normalisation, one pool, two linear layers.

    1,200,074 parameters. Input: (B, 1, 28, 28) float32, standardised ink. Output: (B, 10)
    float32 logits; index i belongs to digit i.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.bn2 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout2d(0.25)
        self.fc1 = nn.Linear(9216, 128)
        self.dropout2 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(128, 10)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 10) for a batch of standardised ink (B, 1, 28, 28)."""
        logits: Tensor = self.fc2(self.dropout2(self.features(x)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """What ``fc2`` sees, before dropout: (B, 128), from 0 up; novelty is scored on it."""
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 32, 26, 26)
        x = self.bn2(self.conv2(x))  # (B, 64, 24, 24)
        # Maximum and ReLU commute; pooling first leaves a quarter as much to rectify.
        x = self.dropout1(self.relu(self.pool(x)))  # (B, 64, 12, 12)
        x = torch.flatten(x, 1)  # (B, 9216)
        found: Tensor = self.relu(self.fc1(x))  # (B, 128)
        return found
