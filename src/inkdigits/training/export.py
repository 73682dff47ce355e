"""Trained weights → the artifact that is served, and back. Needs torch and onnx."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from inkdigits.decision.policy import METHOD, DecisionPolicy
from inkdigits.decision.strip import STRIP_HEIGHT
from inkdigits.ink.normalize import PREPROCESSING_VERSION
from inkdigits.ink.segment import STEP
from inkdigits.model.artifact import (
    LINE_READER,
    MARGIN,
    SEGMENTER,
    ArtifactMetadata,
    read_network,
    seal,
)
from inkdigits.model.networks import NETWORKS, InkNet, LineNet, Network, build_network
from inkdigits.training.checkpoint import weights_digest

INPUT_NAME = "ink"
OUTPUT_NAMES = ("logits", "features")


class _Served(nn.Module):
    """A network that returns logits and features."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.features(x)
        return self.network.fc2(features), features


def export(
    weights: Mapping[str, Tensor],
    temperature: float,
    policy: DecisionPolicy,
    provenance: Mapping[str, Any],
    second_look_margin: float = MARGIN,
    networks: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """Return a sealed artifact of whichever network the weights belong to.

    Batch normalisation stays a node of its own and every parameter keeps its name in the
    state_dict, so that PyTorch can load the artifact too; ONNX Runtime folds it when it loads.

    Temperature (above 0) and policy were fitted with the margin of test-time augmentation. The
    provenance, which JSON can hold, says how it was made. ``networks`` are the ONNX models of
    SEGMENTER and LINE_READER; those of the shipped artifact by default. A RuntimeError names the
    keys of weights that are no network's.

    >>> export({}, 1.0, DecisionPolicy(None, risk=0.001, level=0.95), {})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    RuntimeError: Error(s) in loading state_dict for ...
    """
    network = network_of(weights)
    sides = {0: torch.export.Dim("batch")}
    ink = torch.zeros(2, 1, 28, 28)
    proto = _exported(_Served(network), ink, INPUT_NAME, OUTPUT_NAMES, sides)
    _rename_initializers(proto)
    networks = {
        name: networks[name] if name in networks else read_network(name)
        for name in (SEGMENTER, LINE_READER)
    }
    metadata = ArtifactMetadata(
        model_version=_version(weights, networks, temperature, policy, second_look_margin),
        architecture=type(network).__name__,
        temperature=float(temperature),
        policy=policy,
        second_look_margin=float(second_look_margin),
        provenance=dict(provenance),
    )
    properties = metadata.to_properties()
    for name, model in networks.items():
        properties[name] = base64.b64encode(model).decode("ascii")
    onnx.helper.set_model_props(proto, properties)
    onnx.checker.check_model(proto)
    return seal(proto.SerializeToString(deterministic=True))


def export_segmenter(weights: Mapping[str, Tensor]) -> bytes:
    """Return an ``InkNet`` as an ONNX model, for views (1, 1, H, W) of any multiples of 32.

    A RuntimeError names the keys of weights that are not the network's.

    >>> export_segmenter({})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    RuntimeError: Error(s) in loading state_dict for InkNet:...
    """
    height, width = (STEP * torch.export.Dim(name, min=2, max=64) for name in ("rows", "columns"))
    view = torch.zeros(1, 1, 4 * STEP, 6 * STEP)
    return _export_other(InkNet(), weights, view, {2: height, 3: width})


def export_line_reader(weights: Mapping[str, Tensor]) -> bytes:
    """Return a ``LineNet`` as an ONNX model, for strips (N, 1, 32, W) of any even width.

    A RuntimeError names the keys of weights that are not the network's.

    >>> export_line_reader({})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    RuntimeError: Error(s) in loading state_dict for LineNet:...
    """
    n, width = torch.export.Dim("batch"), 2 * torch.export.Dim("columns", min=2, max=10_000)
    strips = torch.zeros(2, 1, STRIP_HEIGHT, 120)
    return _export_other(LineNet(), weights, strips, {0: n, 3: width})


def _export_other(
    network: nn.Module, weights: Mapping[str, Tensor], example: Tensor, sides: Mapping[int, Any]
) -> bytes:
    """Return a network with one input and one output, whose ``sides`` are free."""
    network.load_state_dict(dict(weights))
    proto = _exported(network, example, "picture", ("logits",), sides)
    onnx.checker.check_model(proto)
    model: bytes = proto.SerializeToString(deterministic=True)
    return model


def _exported(
    network: nn.Module, example: Tensor, given: str, found: Sequence[str], sides: Mapping[int, Any]
) -> onnx.ModelProto:
    program = torch.onnx.export(
        network.eval(),
        (example,),
        dynamo=True,
        optimize=False,
        verbose=False,
        input_names=[given],
        output_names=list(found),
        dynamic_shapes={"x": dict(sides)},
    )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = program.model_proto
    _remove_traces(proto)
    _leave_out_computed_biases(proto)
    return proto


def _remove_traces(proto: onnx.ModelProto) -> None:
    """Remove the source lines of the exporting machine that the exporter adds to every node."""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    graph = proto.graph
    for named in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del named.metadata_props[:]
        named.doc_string = ""


def _rename_initializers(proto: onnx.ModelProto) -> None:
    """Remove the wrapper's prefix, so that parameters have their names in the state_dict."""
    prefix = "network."
    for tensor in proto.graph.initializer:
        tensor.name = tensor.name.removeprefix(prefix)
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = name.removeprefix(prefix)
    for value in proto.graph.value_info:
        value.name = value.name.removeprefix(prefix)


def _leave_out_computed_biases(proto: onnx.ModelProto) -> None:
    """Remove the computed bias from convolutions that have none.

    The exporter gives them zeros, computed when the model runs. ONNX Runtime then cannot fold
    batch normalisation into them, nor lay them out for the processor: DigitNet took 1.7 times as
    long.
    """
    graph = proto.graph
    constant = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] not in constant:
            del node.input[2]
    # Nodes that computed them are removed from the last to the first.
    while True:
        used = {name for node in graph.node for name in node.input}
        used |= {output.name for output in graph.output}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            return
        for node in unused:
            graph.node.remove(node)


def network_of(weights: Mapping[str, Tensor]) -> Network:
    """Return the network that a state_dict belongs to, with those weights, in evaluation mode.

    A RuntimeError names the keys that are missing or unexpected.

    >>> type(network_of(build_network("MNISTClassifier").state_dict())).__name__
    'MNISTClassifier'
    """
    fitting = [n for n in NETWORKS if build_network(n).state_dict().keys() == weights.keys()]
    network = build_network(fitting[0] if fitting else next(iter(NETWORKS)))
    network.load_state_dict(dict(weights))
    return network.eval()


def _version(
    weights: Mapping[str, Tensor],
    networks: Mapping[str, bytes],
    temperature: float,
    policy: DecisionPolicy,
    margin: float,
) -> str:
    """Return a version from all that an answer depends on, so equal answers have equal ones."""
    settings = (PREPROCESSING_VERSION, float(temperature), policy, float(margin))
    content = hashlib.sha256(repr(settings).encode())
    content.update(weights_digest(weights).encode())
    content.update(METHOD.encode())
    for _, model in sorted(networks.items()):
        content.update(model)
    return f"mnist-classifier-{content.hexdigest()[:12]}"
