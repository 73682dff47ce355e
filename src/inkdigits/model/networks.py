"""The networks, and their weights in an artifact. They know no data, no training, no pictures.

``DigitNet`` is shipped; ``MNISTClassifier`` is the plain network that the project began with, and
that it is compared with (docs/decisions/). Both can be trained, exported and served.

Input: (B, 1, 28, 28) float32, standardised ink (``ink.normalize.standardise``). Output: (B, 10)
float32 logits, for ``calibration.temperature``; index i belongs to digit i.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from onnx import numpy_helper
from torch import Tensor, nn

from inkdigits.errors import ArtifactCorruptError, ConfigError
from inkdigits.model.artifact import ArtifactMetadata


class _Classifier(nn.Module):
    """A network whose last layer is linear on 128 features."""

    dropout2: nn.Dropout
    fc2: nn.Linear

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 10) for a batch of standardised ink (B, 1, 28, 28)."""
        logits: Tensor = self.fc2(self.dropout2(self.features(x)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Return what ``fc2`` sees, before dropout: (B, 128), from 0 up."""
        raise NotImplementedError


class MNISTClassifier(_Classifier):
    """Two convolutions with batch normalisation, one pool, two linear layers: 1,200,074 parameters.

    >>> MNISTClassifier()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
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

    def features(self, x: Tensor) -> Tensor:
        """Return what ``fc2`` sees, before dropout: (B, 128), from 0 up."""
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 32, 26, 26)
        x = self.bn2(self.conv2(x))  # (B, 64, 24, 24)
        # Maximum and ReLU commute; pooling first leaves a quarter as much to rectify.
        x = self.dropout1(self.relu(self.pool(x)))  # (B, 64, 12, 12)
        x = torch.flatten(x, 1)  # (B, 9216)
        found: Tensor = self.relu(self.fc1(x))  # (B, 128)
        return found


class DigitNet(_Classifier):
    """Six 3x3 convolutions, halving the picture twice, and two linear layers.

    881,194 parameters, and less than twice MNISTClassifier's arithmetic.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, kernel_size=3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.conv4 = nn.Conv2d(64, 96, kernel_size=3, stride=2, padding=1, bias=False)
        self.bn4 = nn.BatchNorm2d(96)
        self.conv5 = nn.Conv2d(96, 96, kernel_size=3, padding=1, bias=False)
        self.bn5 = nn.BatchNorm2d(96)
        self.conv6 = nn.Conv2d(96, 96, kernel_size=3, padding=1, bias=False)
        self.bn6 = nn.BatchNorm2d(96)
        self.dropout1 = nn.Dropout(0.2)
        self.fc1 = nn.Linear(4704, 128)
        self.dropout2 = nn.Dropout(0.3)
        self.fc2 = nn.Linear(128, 10)
        self.relu = nn.ReLU()

    def features(self, x: Tensor) -> Tensor:
        """Return what ``fc2`` sees, before dropout: (B, 128), from 0 up."""
        x = self.relu(self.bn1(self.conv1(x)))  # (B, 32, 28, 28)
        x = self.relu(self.bn2(self.conv2(x)))  # (B, 64, 14, 14)
        x = self.relu(self.bn3(self.conv3(x)))
        x = self.relu(self.bn4(self.conv4(x)))  # (B, 96, 7, 7)
        x = self.relu(self.bn5(self.conv5(x)))
        x = self.relu(self.bn6(self.conv6(x)))
        x = self.dropout1(torch.flatten(x, 1))  # (B, 4704)
        found: Tensor = self.relu(self.fc1(x))  # (B, 128)
        return found


class InkNet(nn.Module):
    """A U-Net that finds ink in pictures (Ronneberger, Fischer and Brox, arXiv:1505.04597).

    Its finest level has 2x2 pixels in the channels, which takes a quarter of the time. The mean
    over the picture is added at the coarsest level, because light and paper are alike all over it.

    Input: (B, 1, H, W) float32, grey without its mean and deviation (``ink.segment``); H and W are
    multiples of 32. Output: (B, 2, H, W) logits, of ink and of the centres of digits.

    >>> InkNet()(torch.zeros(1, 1, 64, 96)).shape
    torch.Size([1, 2, 64, 96])
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 48, 64, 64)) -> None:
        super().__init__()
        inputs = (4, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(a, b, 2 if level else 1), _convolution(b, b))
            for level, (a, b) in enumerate(zip(inputs, widths, strict=True))
        )
        self.whole = nn.Linear(widths[-1], widths[-1])
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, kernel_size=1) for a, b in pairs)
        self.up = nn.ModuleList(_convolution(b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], 8, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 2, H, W)."""
        x = F.pixel_unshuffle(x, 2)  # (B, 4, H/2, W/2)
        levels = []
        for block in self.down:
            x = block(x)
            levels.append(x)
        x = x + self.whole(x.mean((2, 3)))[:, :, None, None]
        for narrow, block, finer in zip(self.narrow, self.up, levels[-2::-1], strict=True):
            x = block(finer + F.interpolate(narrow(x), scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.head(x), 2)


def _convolution(inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class LineNet(nn.Module):
    """Reads a line of digits: the likeliest digit, or none, at every second column.

    Convolutions alone, so that a digit is read from its own surroundings and the strip may have
    any length. Its losses and its decoding are Graves et al.'s connectionist temporal
    classification (ICML 2006).

    Input: (B, 1, 32, W) float32, 0 for background to 1 for ink, W even. Output: (B, W/2, 12)
    logits, of
    the digits, of something else that is written, and of nothing.

    >>> LineNet()(torch.zeros(2, 1, 32, 96)).shape
    torch.Size([2, 48, 12])
    """

    def __init__(self, widths: tuple[int, int, int, int] = (24, 32, 48, 96)) -> None:
        super().__init__()
        first, second, third, last = widths
        self.rows = nn.Sequential(
            _convolution(1, first, 2),  # 16 rows
            _convolution(first, second, (2, 1)),
            _convolution(second, third, (2, 1)),
            _convolution(third, third),  # 4 rows
        )
        self.flat = nn.Conv1d(4 * third, last, kernel_size=3, padding=1)
        self.columns = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(last),
                nn.ReLU(),
                nn.Conv1d(last, last, 5, padding=2 * reach, dilation=reach),
            )
            for reach in (1, 1, 2, 1)
        )
        self.head = nn.Sequential(nn.BatchNorm1d(last), nn.ReLU(), nn.Conv1d(last, 12, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, W/2, 12)."""
        x = self.flat(self.rows(x).flatten(1, 2))
        for block in self.columns:
            x = x + block(x)
        found: Tensor = self.head(x).transpose(1, 2)
        return found


Network: TypeAlias = MNISTClassifier | DigitNet
NetworkName: TypeAlias = Literal["DigitNet", "MNISTClassifier"]
NETWORKS: dict[NetworkName, type[Network]] = {
    "DigitNet": DigitNet,
    "MNISTClassifier": MNISTClassifier,
}


def build_network(name: str) -> Network:
    """Return a network by the name of its class, with random weights.

    Raises:
        ConfigError: there is none of that name.

    >>> sum(p.numel() for p in build_network("DigitNet").parameters())
    881194
    """
    found = {str(known): network for known, network in NETWORKS.items()}.get(name)
    if found is None:
        raise ConfigError(f"network {name!r} is none of {', '.join(NETWORKS)}")
    return found()


def load_network(artifact: bytes) -> Network:
    """Return the network of an artifact that ``read_artifact`` has checked, in evaluation mode.

    Raises:
        ArtifactCorruptError: parameters are missing, unexpected or of another shape (all are
            named), or the network is unknown.

    >>> from inkdigits.model.artifact import read_artifact
    >>> type(load_network(read_artifact())).__name__
    'DigitNet'
    """
    proto = onnx.load_model_from_string(artifact)
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    architecture = ArtifactMetadata.from_properties(properties).architecture
    try:
        network = build_network(architecture)
    except ConfigError as error:
        raise ArtifactCorruptError(f"the artifact's {error}") from error
    found = {
        tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in proto.graph.initializer
    }
    try:
        missing, unexpected = network.load_state_dict(found, strict=False)
    except RuntimeError as error:  # of another shape
        raise ArtifactCorruptError(
            f"the artifact's weights are no {architecture}'s: {error}"
        ) from error
    # Counts of training batches, which no output depends on, have no place in ONNX.
    absent = [name for name in missing if not name.endswith("num_batches_tracked")]
    wrong = [f"{name} is missing" for name in absent]
    wrong += [f"{name} is unexpected" for name in unexpected]
    if wrong:
        raise ArtifactCorruptError(
            f"the artifact does not hold the weights of {architecture}: {'; '.join(sorted(wrong))}"
        )
    return network.eval()
