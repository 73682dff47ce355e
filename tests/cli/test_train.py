import pytest
import torch
from support.commands import run

pytestmark = pytest.mark.trains


def train(data, folder):
    return [
        *("train", "--data", data, "--no-download", "--epochs", 1, "--synthetic", 0),
        *("--device", "cpu"),
        *("--out", folder, "--figures", folder, "--logs", folder),
    ]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--pictures", "a.npz"], 2, "use either --pictures or --synthetic 0"),
        (["--resume", "--out", "nowhere"], 1, "nothing to resume"),
        (["--weight", "3"], 2, "--weight needs --add"),
        (["--held-back", "0.1"], 2, "--held-back needs --add"),
        (
            ["--segmenter", "shipped", "--segmenter-steps", "9"],
            2,
            "use either --segmenter",
        ),
        (["--segmenter", "none.pt"], 1, "there is no network that finds ink at none.pt"),
        (["--segmenter", "wrong.pt"], 1, "wrong.pt holds no network that finds ink"),
        (["--init", "wrong.pt"], 1, "those of none of DigitNet"),
    ],
)
def test_options_that_cannot_be_trained_with_are_errors(
    options, code, message, small_mnist, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.zeros(3)}, "wrong.pt")
    assert message in run(*train(small_mnist, tmp_path), *options, exit_code=code).stderr


def test_no_download_in_a_file_of_options_means_no_download(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.toml").write_text('no-download = true\ndata = "nowhere"\n')
    told = run("train", "--config", "options.toml", exit_code=1).stderr
    assert "Pass --download to fetch it" in told
