"""The commands that look after the prediction log: history export, purge, delete, flush."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inkdigits.decision.policy import Decision
from inkdigits.errors import ConfigError

if TYPE_CHECKING:
    from inkdigits.log.export import Format
    from inkdigits.log.queries import Feedback
    from inkdigits.log.store import Store

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


def open_log() -> Store:
    """The log that the environment names, the one that "inkdigits serve" writes.

    Raises:
        InkdigitsError: a setting, URL, folder or schema that can't be used, or no log is kept.
    """
    from inkdigits.serving.preflight import open_store
    from inkdigits.settings import Settings

    # Nobody waits for a command, so that it may wait for a busy database.
    store = open_store(replace(Settings.from_env(), log_wait_ms=60_000))
    if store is None:
        raise ConfigError("no prediction log is kept: INKDIGITS_PAGE is off without DATABASE_URL")
    return store


@click.group(short_help="Look after the prediction log.")
def history() -> None:
    """Look after the prediction log: export, purge, delete, flush."""


@history.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(["csv", "parquet", "idx"]), required=True)
@click.option("--digit", type=click.IntRange(-1, 9), help="-1: nothing was read.")
@click.option("--decision", type=click.Choice(["accept", "review", "reject"]))
@click.option("--feedback", type=click.Choice(["given", "none", "right", "wrong"]))
@click.option("--since", type=MOMENT, help="UTC, from this time on.")
@click.option("--until", type=MOMENT, help="UTC, before this time.")
def export_history(
    file: Path,
    form: Format,
    digit: int | None,
    decision: Decision | None,
    feedback: Feedback | None,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """Write predictions to FILE; idx is a ZIP of MNIST's two files, of the corrected digits."""
    from inkdigits.log.queries import Filters

    filters = Filters(
        digit=digit,
        decision=decision,
        feedback=feedback,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
    )
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with open_log() as store, part.open("wb") as opened:
            count = store.export(form, opened, filters)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    click.echo(f"{count} predictions in {file}")


@history.command()
def purge() -> None:
    """Delete what is older than INKDIGITS_RETENTION_DAYS, now."""
    with open_log() as store:
        click.echo(f"{store.purge()} predictions deleted")


@history.command()
@click.argument("prediction_id", required=False)
@click.option("--all", "everything", is_flag=True, help="All predictions of everybody.")
@click.confirmation_option(prompt="Delete for good?")
def delete(prediction_id: str | None, *, everything: bool) -> None:
    """Delete one prediction by its id, or --all."""
    if (prediction_id is None) != everything:
        raise click.UsageError("give a prediction's id or --all")
    from inkdigits.log.record import ANYONE

    with open_log() as store:
        if prediction_id is None:
            click.echo(f"{store.delete_all(owner=ANYONE)} predictions deleted")
        else:
            store.delete(prediction_id)
            click.echo("1 prediction deleted")


@history.command()
def flush() -> None:
    """Move the predictions that wait in the outbox to the database."""
    with open_log() as store:
        click.echo(f"{store.flush_outbox()} predictions moved to the database")
