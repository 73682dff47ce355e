"""The layers of a network as they run, and their diagram.

The layers are read from a forward pass of the real network, so that no list can become outdated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from inkdigits.evaluation.plots import BLUE, GREY, ORANGE, TIMES
from inkdigits.model.networks import NetworkName, build_network


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of one layer."""

    name: str  # the attribute's name in the network; "flatten" for a reshaping between layers
    kind: str  # the layer's class with its main setting, for example "Dropout 0.5"
    output_shape: tuple[int, ...]  # of one picture, without the batch dimension
    parameters: int  # trainable numbers in it; 0 if it has none, or at its second call


def trace_layers(network: NetworkName) -> list[Layer]:
    """Return every layer that the network calls for one picture, in order.

    The network is built on torch's meta device: shapes without numbers, which leaves the random
    generator alone. It runs in training mode, so that dropout counts as called.

    >>> trace_layers("MNISTClassifier")[0].output_shape
    (32, 26, 26)
    """
    layers: list[Layer] = []
    counted: set[str] = set()
    with torch.device("meta"):
        model, ink = build_network(network), torch.zeros(1, 1, 28, 28)
    current = ink.shape
    names = {module: name for name, module in model.named_modules()}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal current
        if inputs[0].shape != current:
            layers.append(Layer("flatten", "flatten", tuple(inputs[0].shape[1:]), 0))
        name = names[module]
        size = 0 if name in counted else sum(p.numel() for p in module.parameters())
        counted.add(name)
        layers.append(Layer(name, _kind(module), tuple(output.shape[1:]), size))
        current = output.shape

    for module in model.modules():
        if not any(module.children()):
            module.register_forward_hook(record)
    model(ink)
    return layers


def _kind(module: nn.Module) -> str:
    """Return the class's name with its main setting."""
    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        return f"{name} {module.kernel_size[0]}{TIMES}{module.kernel_size[1]}"
    if isinstance(module, nn.MaxPool2d):
        return f"{name} {module.kernel_size}{TIMES}{module.kernel_size}"
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return f"{name} {module.p:g}"
    return name


def architecture_diagram(network: NetworkName, layers: Sequence[Layer]) -> Figure:
    """Draw a network as blocks of feature maps, with the layers between and their parameters.

    >>> figure = architecture_diagram("DigitNet", trace_layers("DigitNet"))
    >>> figure.axes[0].get_title().split(":")[0]
    'DigitNet'
    """
    # One block for each shape that a picture takes on; layers that keep the shape join its block.
    blocks: list[tuple[tuple[int, ...], list[Layer]]] = [((1, 28, 28), [])]
    for layer in layers:
        if layer.output_shape != blocks[-1][0]:
            blocks.append((layer.output_shape, []))
        blocks[-1][1].append(layer)
    texts = ["\n".join(map(_describe, members)) or "standardised ink" for _, members in blocks]
    # Inches: what a unit of the vertical axis takes, a line of 10 points (0.21), and a character of
    # it at most (0.09).
    unit = 1.85
    depth = 0.21 * max(text.count("\n") + 1 for text in texts) / unit
    width = max(unit, 0.09 * max(len(line) for text in texts for line in text.splitlines()))
    low, high = -0.35 - depth, 1.15
    figure = Figure(figsize=(width * len(blocks), unit * (high - low) + 0.4), layout="constrained")
    axes = figure.subplots()
    total = sum(layer.parameters for layer in layers)
    axes.set_title(f"{network}: {total:,} parameters", fontsize=15)
    axes.set_axis_off()
    axes.set(xlim=(-0.55, len(blocks) - 0.4), ylim=(low, high))
    arrow = {"arrowstyle": "->", "color": GREY, "linewidth": 1.5}
    for x, ((shape, _), text) in enumerate(zip(blocks, texts, strict=True)):
        _draw_block(axes, x, shape, unit / width)
        size = f" {TIMES} ".join(map(str, shape))
        axes.text(x, 1.0, size, ha="center", fontsize=12, fontweight="bold")
        if x > 0:
            axes.annotate("", xy=(x - 0.36, 0.4), xytext=(x - 0.58, 0.4), arrowprops=arrow)
        axes.text(x, -0.3, text, ha="center", va="top", fontsize=10, linespacing=1.5)
    return figure


def _describe(layer: Layer) -> str:
    plain = layer.name.rpartition(".")[2] == layer.kind.lower()
    text = layer.kind if plain else f"{layer.name}: {layer.kind}"
    return f"{text}\n({layer.parameters:,} parameters)" if layer.parameters else text


def _draw_block(axes: Axes, x: float, shape: tuple[int, ...], aspect: float) -> None:
    """Draw a stack of sheets for feature maps (C, H, W), or a bar for a vector.

    ``aspect`` is a unit's height in inches divided by its width.
    """
    if len(shape) == 1:
        height = 0.12 * math.log2(shape[0]) / 2
        axes.add_patch(Rectangle((x - 0.04, 0.4 - height / 2), 0.08, height, color=ORANGE))
        return
    sheets = 1 + math.ceil(math.log2(shape[0]))
    side = 0.5 * shape[1] / 28
    for sheet in reversed(range(sheets)):
        shift = 0.025 * (sheet - (sheets - 1) / 2)
        corner = (x + aspect * (shift - side / 2), 0.4 + shift - side / 2)
        axes.add_patch(Rectangle(corner, aspect * side, side, facecolor=BLUE, edgecolor="white"))
