from inkdigits.model.networks import MNISTClassifier
from inkdigits.training.checkpoint import weights_digest
from inkdigits.training.provenance import exported_provenance, origin_of, split_of_weights
from inkdigits.training.run_folder import WEIGHTS_NAME, save_weights, write_json


def test_origin_of_weights_is_their_digest_and_what_their_run_says(tmp_path):
    weights = MNISTClassifier().state_dict()
    save_weights(weights, tmp_path / WEIGHTS_NAME)
    digest = {"sha256": weights_digest(weights)}
    assert origin_of(tmp_path / WEIGHTS_NAME) == digest
    write_json(tmp_path / "run.json", {"kept_epoch": 3, "test": {"n": 10}})
    assert origin_of(tmp_path / WEIGHTS_NAME) == {**digest, "kept_epoch": 3}


def test_exported_again_an_artifact_keeps_its_training_and_takes_the_new_drift(tmp_path):
    write_json(tmp_path / "run.json", {"device": "cpu", "drift_reference": 1, "history": []})
    found = exported_provenance(tmp_path, {"drift_reference": 2, "temperature": 1.5})
    assert found == {"device": "cpu", "drift_reference": 2}


def test_the_split_of_a_run_is_what_its_run_json_says(tmp_path):
    weights = tmp_path / WEIGHTS_NAME
    assert split_of_weights(weights) is None
    for data, split in (({}, "pictures"), ({"split": "writers"}, "writers")):
        write_json(tmp_path / "run.json", {"data": data})
        assert split_of_weights(weights) == split
