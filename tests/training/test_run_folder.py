import pytest
import torch

from inkdigits.errors import TrainingError
from inkdigits.training.run_folder import read_json, read_weights, save_weights


def test_weights_of_another_network_or_of_none_are_errors(fitted, tmp_path):
    path = tmp_path / "weights.pt"
    save_weights(fitted.weights, path)
    assert read_weights(path, "MNISTClassifier").keys() == fitted.weights.keys()
    with pytest.raises(TrainingError, match="are MNISTClassifier's, not DigitNet's"):
        read_weights(path, "DigitNet")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "foreign.pt")
    (tmp_path / "damaged.pt").write_bytes(b"damaged")
    for name in ("foreign.pt", "damaged.pt"):
        with pytest.raises(TrainingError, match=f"{name} cannot be used"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize(("content", "message"), [("[1]", "holds no JSON object"), ("{", "read")])
def test_json_file_that_holds_no_object_is_an_error(content, message, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrainingError, match=message):
        read_json(tmp_path / "run.json")
