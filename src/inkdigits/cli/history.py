"""The commands for the prediction log: history export, purge, delete, flush."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click import Choice, IntRange

from inkdigits.cli.options import FILE, counted, option
from inkdigits.errors import ConfigError
from inkdigits.settings import Settings

if TYPE_CHECKING:
    from inkdigits.log.record import Record
    from inkdigits.log.store import Store

_MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
_FORM = "YYYY-MM-DD[THH:MM:SS]"
_FORMATS: dict[str, Literal["csv", "parquet"]] = {".csv": "csv", ".parquet": "parquet"}


def _open_log() -> Store:
    """Open the log that the environment names, the one that "inkdigits serve" writes."""
    from inkdigits.serving.preflight import open_store

    # A command may wait longer for a busy database than a request.
    store = open_store(replace(Settings.from_env(), log_wait_ms=60_000))
    if store is None:
        raise ConfigError(
            "there is no prediction log because INKDIGITS_PAGE is off and DATABASE_URL is not set; "
            "set DATABASE_URL to the database of the log"
        )
    return store


@click.group()
def history() -> None:
    """Export or delete readings in the prediction log."""


@history.command("export")
@click.argument("file", type=FILE)
@option("--digit", "Export readings of this digit; -1 means no digit.", IntRange(-1, 9))
@option("--decision", "Export readings with this decision.", Choice(["accept", "review", "reject"]))
@option("--feedback", "Select readings by feedback.", Choice(["given", "none", "right", "wrong"]))
@option("--since", "Export readings from this time (UTC) on.", _MOMENT, metavar=_FORM)
@option("--until", "Export readings before this time (UTC).", _MOMENT, metavar=_FORM)
@option("--overwrite", "Replace an existing file.", is_flag=True)
def export_history(
    file: Path, since: datetime | None, until: datetime | None, *, overwrite: bool, **filters: Any
) -> None:
    """Write predictions to FILE, a .csv or .parquet file."""
    from inkdigits.log.queries import Filters
    from inkdigits.model.artifact import open_atomically

    form = _FORMATS.get(file.suffix.lower())
    if form is None:
        raise click.UsageError(f"the name of {file} must end in {' or '.join(_FORMATS)}")
    if file.exists() and not overwrite:
        raise click.ClickException(f"{file} exists; add --overwrite to replace it")
    chosen = Filters(
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
        **filters,
    )
    with _open_log() as store, open_atomically(file) as written:
        count = store.export(form, written, chosen)
    click.echo(f"{counted(count, 'prediction')} in {file}")


@history.command()
def purge() -> None:
    """Delete predictions that are older than INKDIGITS_RETENTION_DAYS."""
    with _open_log() as store:
        click.echo(f"{counted(store.purge(), 'prediction')} deleted")


@history.command()
@click.argument("prediction_id", required=False)
@option("--all everything", "Delete all predictions of all users.", is_flag=True)
@option("--yes", "Delete without confirmation.", is_flag=True)
def delete(prediction_id: str | None, *, everything: bool, yes: bool) -> None:
    """Delete the prediction PREDICTION_ID. With --all, delete all predictions."""
    if (prediction_id is None) != everything:
        raise click.UsageError("state either the id of a prediction or --all")
    from inkdigits.log.record import ANYONE

    with _open_log() as store:
        log = Settings.from_env().log_name
        if prediction_id is None:
            all_of = counted(store.count(), "prediction")
            what = f"{all_of} of all users, with their ink and labels,"
        else:
            what = _described(store.get(prediction_id))
        if not yes:
            click.confirm(f"Permanently delete {what} from {log}?", abort=True)
        if prediction_id is not None:
            store.delete(prediction_id)
        deleted = store.delete_all(owner=ANYONE) if prediction_id is None else 1
        click.echo(f"{counted(deleted, 'prediction')} deleted")


def _described(record: Record) -> str:
    read = record.text if record.digit is None else record.digit
    label = "no label" if record.label is None else f"labelled {record.label}"
    at = f"{record.created_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"the reading {read or 'without ink'} ({record.decision}, {label}) of {at}"


@history.command()
def flush() -> None:
    """Move predictions from the outbox to the database."""
    with _open_log() as store:
        click.echo(f"{counted(store.flush_outbox(), 'prediction')} moved to the database")
