"""The commands of the tutorial are run in their order, but those that serve or train."""

import re
import shlex

from support.artifacts import variant
from support.commands import run
from support.repository import REPOSITORY

from inkdigits.ink.png import encode_png
from inkdigits.model.artifact import ARTIFACT_NAME
from inkdigits.model.registry import Registry

PAGE = (REPOSITORY / "docs" / "your-own-digits.md").read_text(encoding="utf-8")
LEFT_OUT = {"serve", "train"}


def test_commands_of_the_tutorial_run_one_after_another(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inks, labels = digits
    for number in range(400):
        folder = "own" if number < 300 else "check"
        path = tmp_path / folder / str(labels[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(255 - inks[number]))
    # What "train" would have made.
    variant(tmp_path / "models" / "tuned" / ARTIFACT_NAME, "version-tuned")
    (gate,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "gate.toml").write_text(gate)
    lines = "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    commands = [shlex.split(line)[1:] for line in lines]
    assert {command[0] for command in commands} == {*LEFT_OUT, "evaluate", "calibrate", "models"}
    for command in commands:
        if command[0] not in LEFT_OUT:
            run(*command)
    assert (tmp_path / "outputs" / "figures" / "report.html").is_file()
    models = Registry(tmp_path / "models")
    assert [one["action"] for one in models.history()] == ["promote", "promote", "rollback"]
    assert models.current == "calibrated"
