import subprocess
import sys

import pytest
from support.commands import run

import inkdigits
from inkdigits.cli.main import main

COMMANDS = {
    *("serve", "key", "predict", "read", "merge", "history", "models"),
    *("synthesise", "train", "evaluate"),
    *("calibrate", "export", "quantise", "benchmark"),
}


def test_every_command_explains_itself_and_a_wrong_call_is_exit_code_2():
    assert set(main.commands) == COMMANDS
    for name, command in main.commands.items():
        text = run(name, "--help").output
        assert command.help, name
        assert len(text.splitlines()) > 4, name

    assert inkdigits.__version__ in run("--version").output
    listed = run("--help").output
    assert "Score a model on labelled pictures." in listed
    assert not any(line.endswith("...") for line in listed.splitlines()[1:])
    for wrong in (["predict"], ["predict", "--device", "tpu", "x.png"], ["nonsense"]):
        run(*wrong, exit_code=2)


def test_interrupted_command_ends_with_one_sentence_and_130(monkeypatch):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("inkdigits.data.labelled.read_labelled", interrupt)
    done = run("calibrate", "--data", "own", "--out", "new", exit_code=130)
    assert done.stderr == "inkdigits calibrate was interrupted and did not finish\n"


def test_without_the_training_side_the_extra_is_named():
    code = "import sys; sys.modules['torch'] = None; from inkdigits.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", "--no-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "run pip install -e '.[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_module_that_is_no_training_package_is_not_blamed_on_the_extra(monkeypatch):
    def fail(*_args, **_options):
        raise ModuleNotFoundError(name="somebody_elses")

    monkeypatch.setattr("inkdigits.data.labelled.read_labelled", fail)
    with pytest.raises(ModuleNotFoundError):
        main(["calibrate", "--data", "own", "--out", "new"], standalone_mode=False)
