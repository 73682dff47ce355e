import numpy as np
import pytest
from support.commands import run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "out.csv", "--shard", "4/4"], "must be like 0/4"),
        (["--out", "out.csv", "--address", "auto"], "needs --engine ray"),
        (["--out", "out.csv", "--engine", "ray", "--workers", "2"], "is for local processes"),
        (["--out", "out.csv", "https://example.org/7.png"], "not - or addresses"),
        (["--shard", "0/2"], "need --out"),
    ],
)
def test_bulk_options_that_do_not_fit_say_what_does(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.zeros((2, 28, 28), np.uint8))
    for command in ("predict", "read"):
        assert message in run(command, "a.npy", *arguments, exit_code=2).stderr
    assert "nothing to resume" in run("merge", "out.csv", exit_code=1).stderr
