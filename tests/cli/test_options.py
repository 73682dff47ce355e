from pathlib import Path

import pytest

from inkdigits.cli.options import needs_training_extra, printable, resumable


def test_module_that_is_no_training_package_is_not_blamed_on_the_extra():
    def command():
        raise ModuleNotFoundError(name="somebody_elses")

    with pytest.raises(ModuleNotFoundError) as caught:
        needs_training_extra(command)()
    assert caught.type is ModuleNotFoundError


def test_interrupted_command_says_how_to_resume_and_exits_with_130(capsys):
    with pytest.raises(SystemExit) as caught, resumable(Path("saved_models")):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert "with --resume to continue from saved_models" in capsys.readouterr().err


def test_names_cannot_control_the_terminal():
    assert printable("a\x1b[2J\nb é") == "a\\x1b[2J\\nb é"
