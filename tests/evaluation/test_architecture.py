import pytest
import torch
from torch import nn

from inkdigits.evaluation.architecture import architecture_diagram, trace_layers
from inkdigits.model.networks import build_network

TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize(
    ("network", "shapes"),
    [
        ("MNISTClassifier", ("1 28 28", "32 26 26", "64 24 24", "64 12 12", "9216", "128", "10")),
        ("DigitNet", ("1 28 28", "32 28 28", "64 14 14", "96 7 7", "4704", "128", "10")),
    ],
)
def test_the_architecture_diagram_shows_every_layer_of_the_real_network(network, shapes):
    model = build_network(network)
    (axes,) = architecture_diagram(network, trace_layers(network)).axes
    total = sum(p.numel() for p in model.parameters())
    assert axes.get_title() == f"{network}: {total:,} parameters"
    written = [text.get_text() for text in axes.texts]
    for shape in shapes:
        assert shape.replace(" ", f" {TIMES} ") in written
    everything = "\n".join(written)
    for name, layer in model.named_children():
        assert type(layer).__name__ in everything
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            size = sum(p.numel() for p in layer.parameters())
            label = next(text for text in written if f"{name}: " in text)
            assert f"({size:,} parameters)" in label


def test_traced_layers_hold_every_parameter_once_and_leave_the_random_generator_alone():
    before = torch.get_rng_state()
    layers = {layer.name: layer for layer in trace_layers("MNISTClassifier")}
    assert torch.equal(torch.get_rng_state(), before)
    assert sum(layer.parameters for layer in layers.values()) == 1_200_074
    names = [name for name, layer in layers.items() if layer.parameters]
    assert names == ["conv1", "bn1", "conv2", "bn2", "fc1", "fc2"]
    assert layers["flatten"].output_shape == (9216,)
