import onnx
import pytest
import torch

from inkdigits.errors import ArtifactCorruptError, ConfigError
from inkdigits.model.artifact import read_artifact
from inkdigits.model.networks import NETWORKS, build_network, load_network


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("MNISTClassifier", 1_200_074), ("DigitNet", 881_194)],
)
def test_networks_have_their_size_and_ten_logits(name, parameters):
    network = build_network(name)
    assert sum(value.numel() for value in network.parameters()) == parameters
    batch = torch.zeros(3, 1, 28, 28)
    assert network(batch).shape == (3, 10)
    assert network.features(batch).shape == (3, 128)


def test_specified_network_has_its_layers_and_dropout_and_an_unknown_one_lists_the_known():
    specified = build_network("MNISTClassifier")
    assert (specified.dropout1.p, specified.dropout2.p) == (0.25, 0.5)
    assert specified.conv1.weight.shape == (32, 1, 3, 3)
    assert specified.conv2.weight.shape == (64, 32, 3, 3)
    assert (specified.fc1.in_features, specified.fc2.in_features) == (9216, 128)
    with pytest.raises(ConfigError, match=", ".join(NETWORKS)):
        build_network("AlexNet")


def test_artifact_with_other_weights_than_its_network_is_rejected():
    proto = onnx.load_model_from_string(read_artifact())
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    tensors["fc2.bias"].name = "fc3.bias"
    with pytest.raises(
        ArtifactCorruptError, match=r"fc2\.bias is missing; fc3\.bias is unexpected"
    ):
        load_network(proto.SerializeToString())
