import subprocess
import sys

from support.commands import run

import inkdigits
from inkdigits.cli.main import main

COMMANDS = {
    *("serve", "key", "predict", "history"),
    *("synthesise", "train", "evaluate", "calibrate", "export", "benchmark"),
}


def test_every_command_is_there_and_explains_itself_and_its_options():
    assert set(main.commands) == COMMANDS
    for name, command in main.commands.items():
        text = run(name, "--help").output
        assert command.help, name
        assert len(text.splitlines()) > 4, name


def test_version():
    assert inkdigits.__version__ in run("--version").output


def test_wrong_call_is_exit_code_2():
    run("predict", exit_code=2)
    run("predict", "--device", "tpu", "x.png", exit_code=2)
    run("nonsense", exit_code=2)


def test_without_the_training_side_the_extra_is_named():
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from inkdigits.cli.main import main\n"
        "main(['evaluate', '--no-download'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "pip install 'inkdigits[train]'" in done.stderr
    assert "Traceback" not in done.stderr
