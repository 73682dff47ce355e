"""The command line: one group of commands, and how their errors end.

Exit codes: 0 done; 1 something could not be done, with one line on standard error that says what;
2 the command was called wrongly; 130 interrupted.
"""

from __future__ import annotations

from typing import Any, Final

import click

from inkdigits.cli.evaluate import benchmark, calibrate, evaluate, export, quantise
from inkdigits.cli.history import history
from inkdigits.cli.models import models
from inkdigits.cli.options import say
from inkdigits.cli.pictures import merge
from inkdigits.cli.predict import predict
from inkdigits.cli.read import read
from inkdigits.cli.serve import key, serve
from inkdigits.cli.synthesise import synthesise
from inkdigits.cli.train import train
from inkdigits.errors import BackendUnavailableError, InkdigitsError

_TRAINING_PACKAGES: Final = frozenset(
    {"matplotlib", "onnx", "onnxscript", "sklearn", "tensorboard", "torch", "torchvision", "tqdm"}
)


class _Commands(click.Group):
    """Turns errors that Inkdigits raises, and files that cannot be used, into one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InkdigitsError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.filename is None:
                raise
            raise click.ClickException(
                f"{error.filename} cannot be read or written: {error.strerror}"
            ) from error
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in _TRAINING_PACKAGES:
                raise
            missing = BackendUnavailableError.without("train", f"this command needs {error.name}")
            raise click.ClickException(str(missing)) from error
        except KeyboardInterrupt:
            say(f"inkdigits {ctx.invoked_subcommand} was interrupted and did not finish")
            ctx.exit(130)


_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=_Commands, context_settings=_SETTINGS)
@click.version_option(package_name="inkdigits", prog_name="inkdigits")
def main() -> None:
    """Read handwritten digits and report the confidence of each reading.

    \b
    inkdigits serve --open                 serve the page and the API on this machine
    inkdigits predict seven.png pictures/  read the digit in each picture
    inkdigits read amount.png              read the number in a picture
    inkdigits COMMAND --help               show the options of a command
    """  # noqa: D301


def _add(group: click.Group) -> None:
    """Let lists of commands show the whole first sentence of each help."""
    for command in group.commands.values():
        command.short_help = (command.help or "").partition("\n\n")[0].replace("\n", " ")
        if isinstance(command, click.Group):
            _add(command)


for command in (
    *(serve, key, predict, read, merge, history, models),
    *(synthesise, train, evaluate, calibrate, export, quantise, benchmark),
):
    main.add_command(command)
_add(main)
