"""The network's layers as they run, read from a real forward pass, so that no list can go stale.

Needs torch, which is imported when it is asked for; knows nothing about drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from inkdigits.model.networks import NetworkName

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Layer:
    """One call of one layer.

    Attributes:
        name: the attribute's name in the network; "flatten" for the reshaping between.
        kind: the layer's class with its main setting, for example "Dropout 0.5".
        output_shape: of one picture, without the batch dimension.
        parameters: trainable numbers in it; 0 if it has none, or at its second call.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


def trace_layers(network: NetworkName) -> list[Layer]:
    """Every layer that the network calls for one picture, in order.

    The network is built on torch's meta device: shapes without numbers, which takes no memory and
    leaves the random generator alone. It runs in training mode, so that dropout counts as called.
    """
    import torch

    from inkdigits.model.networks import build_network

    layers: list[Layer] = []
    counted: set[str] = set()
    current = torch.zeros(1, 1, 28, 28, device="meta").shape

    with torch.device("meta"):
        model = build_network(network)
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
    model(torch.zeros(1, 1, 28, 28, device="meta"))
    return layers


def _kind(module: nn.Module) -> str:
    """The class's name with the setting that a reader would ask for."""
    from torch import nn

    name = type(module).__name__
    if isinstance(module, nn.Conv2d):
        return f"{name} {module.kernel_size[0]}{TIMES}{module.kernel_size[1]}"
    if isinstance(module, nn.MaxPool2d):
        return f"{name} {module.kernel_size}{TIMES}{module.kernel_size}"
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return f"{name} {module.p:g}"
    return name
