"""The command line: one group of commands, and how their errors end.

Exit codes: 0 done; 1 something could not be done, with one line on standard error that says what;
2 the command was called wrongly; 130 interrupted.
"""

from __future__ import annotations

from typing import Any

import click

from inkdigits.cli.evaluate import benchmark, calibrate, evaluate, export, quantise
from inkdigits.cli.history import history
from inkdigits.cli.models import models
from inkdigits.cli.predict import predict
from inkdigits.cli.read import read
from inkdigits.cli.segmenter import train_segmenter
from inkdigits.cli.serve import key, serve
from inkdigits.cli.train import synthesise, train
from inkdigits.errors import InkdigitsError


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


_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True}


@click.group(cls=_Commands, context_settings=_SETTINGS)
@click.version_option(package_name="inkdigits", prog_name="inkdigits")
def main() -> None:
    """Read handwritten digits and say how sure it is.

    Start the service with "inkdigits serve", or read pictures with "inkdigits predict FILE…".
    """


for command in (
    *(serve, key, predict, read, history, models),
    *(synthesise, train, train_segmenter, evaluate, calibrate, export, quantise, benchmark),
):
    main.add_command(command)
