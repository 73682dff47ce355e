import json

import numpy as np
import pytest
import torch
from support.commands import run

import inkdigits
from inkdigits.data.mnist import Digits
from inkdigits.errors import DataError
from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import shipped_artifact
from inkdigits.training.added import SUSPECTS_NAME, check_apart, limited, read_added
from inkdigits.training.config import AddConfig
from inkdigits.training.provenance import split_of_weights


@pytest.fixture(scope="module")
def own(digits, tmp_path_factory):
    """Fifty digits of one's own, of which two have a wrong label, and a picture without one."""
    inks, labels = digits
    folder = tmp_path_factory.mktemp("own")
    for number in range(50):
        label = (int(labels[number]) + 1) % 10 if number in (7, 13) else int(labels[number])
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_png(255 - inks[number]))
    (folder / "none").mkdir()
    plus = np.full((100, 100), 255, np.uint8)
    plus[20:80, 46:54] = plus[46:54, 20:80] = 0
    (folder / "none" / "plus.png").write_bytes(encode_png(plus))
    return folder


def test_added_pictures_are_checked_divided_and_weighted(own, tmp_path):
    lines = []
    config = AddConfig((str(own),), held_back=0.2)
    added = read_added(config, inkdigits.load(), 400, tmp_path, lines.append)
    named = {one["name"].rpartition("/")[2] for one in added.suspects}
    assert {"7.png", "13.png"} <= named
    assert len(named) <= 5
    assert (tmp_path / SUSPECTS_NAME).is_file()
    assert any("are used for training" in line for line in lines)
    assert added.described["suspect_labels"] == len(named)
    assert len(added.learned) + len(added.held_back) == added.described["n"] == 51
    assert 10 <= len(added.held_back) <= 12
    digits = Digits(torch.zeros(400, 28, 28, dtype=torch.uint8), torch.arange(400) % 10)
    mixed = added.mixed_with(digits, seed=0)
    own_ones = len(mixed) - 400
    assert own_ones / len(mixed) == pytest.approx(0.15, abs=0.03)
    assert int(mixed.labels.min()) == 0
    twice = read_added(AddConfig((str(own),), weight=2.0), inkdigits.load(), 9, tmp_path, print)
    assert len(twice.mixed_with(digits, seed=0)) == 400 + 2 * len(twice.learned.divided()[0])


def test_pictures_of_the_test_part_are_not_learned_from():
    inks = torch.arange(3, dtype=torch.uint8)[:, None, None].expand(3, 28, 28)
    test = Digits(inks, torch.arange(3))
    check_apart(Digits(inks + 7, test.labels), test)
    with pytest.raises(DataError, match="1 of the pictures of --add"):
        check_apart(Digits(inks + 2, test.labels), test)


def test_limit_keeps_the_shares_of_the_digits():
    labels = torch.tensor([0] * 300 + [1] * 100)
    digits = Digits(torch.zeros(400, 28, 28, dtype=torch.uint8), labels)
    assert limited(digits, 40, seed=0).labels.bincount().tolist() == [30, 10]
    assert limited(digits, 400, seed=0) is limited(digits, None, seed=0) is digits


def test_run_starts_from_the_shipped_model_and_learns_from_added_pictures(
    own, mnist_with_writers, tmp_path
):
    config = tmp_path / "train.toml"
    config.write_text(
        f'init = "shipped"\nadd = ["{own}"]\nepochs = 9\nlimit = 200\nbatch-size = 60\n'
        f'synthetic = 0\nrisk = 0.4\nout = "{tmp_path / "models" / "mine"}"\n'
    )
    done = run(
        *("train", "--config", config, "--data", mnist_with_writers, "--no-download"),
        *("--epochs", 1),
        *("--figures", tmp_path / "figures", "--logs", tmp_path / "logs"),
    )
    assert "held back, before (A) and after (B)" in done.stderr
    saved = json.loads((tmp_path / "models" / "mine" / "run.json").read_text())
    assert (saved["config"]["epochs"], saved["config"]["limit"]) == (1, 200)
    assert saved["config"]["keep"] == "last"
    assert saved["started_from"]["sha256"]
    assert saved["added"]["n"] == 51
    assert saved["held_back"]["pairs"][0]["a"]["n"] >= 10
    artifact = inkdigits.load(tmp_path / "models" / "mine")
    assert artifact.metadata.provenance["added"] == saved["added"]
    assert artifact.model_version == saved["model_version"]


@pytest.mark.parametrize(
    ("text", "message"), [("epoch = 3", "unknown options: epoch"), ("= 3", "cannot be read")]
)
def test_file_of_options_names_what_is_wrong_with_it(text, message, tmp_path):
    (tmp_path / "train.toml").write_text(text)
    assert message in run("train", "--config", tmp_path / "train.toml", exit_code=2).stderr


def test_run_that_starts_from_an_artifact_keeps_to_its_split():
    assert split_of_weights(shipped_artifact()) in ("pictures", "writers")
