"""What predict and read share to write very many readings to a table, and the command merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inkdigits.cli import options
from inkdigits.cli.options import answer, option, printable, resumable, say
from inkdigits.cli.pictures import (
    STANDARD_INPUT,
    end_with_failures,
    is_address,
    say_unmatched,
    summary,
)
from inkdigits.cli.progress import progress_bar

if TYPE_CHECKING:
    from inkdigits.batch.run import Run, Work


def bulk_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --out and what belongs to it; the command gets ``write``, None without --out."""

    @option(
        "--out",
        "Write one row per reading to this file or URL (.parquet, .csv or .jsonl; a name that ends "
        "in / is a folder of Parquet files), on all cores.",
    )
    @option("--resume", "With --out: resume an unfinished run.", is_flag=True)
    @option(
        "--workers", "With --out: worker processes.  [default: one per core]", options.PROCESSES
    )
    @option(
        "--engine",
        "With --out: processes of this machine, or of a Ray cluster.  [default: local]",
        click.Choice(["local", "ray"]),
        None,
    )
    @option("--address", "With --engine ray: the cluster, such as auto or ray://HOST:10001.")
    @option(
        "--shard",
        "With --out: read part I of N only, 0/N to N-1/N; inkdigits merge joins them.",
        metavar="I/N",
    )
    @wraps(command)
    def with_work(*args: Any, out: str | None, shard: str | None, **others: Any) -> None:
        named = {name: others.pop(name) for name in ("engine", "address", "workers", "resume")}
        if out is None and (shard or any(named.values())):
            raise click.UsageError(
                "--resume, --workers, --engine, --address and --shard need --out"
            )
        is_ray = named["engine"] == "ray"
        if (named["address"] and not is_ray) or (named["workers"] and is_ray):
            raise click.UsageError("--address needs --engine ray; --workers is for local processes")
        write = None
        if out is not None:
            # Only here, since it needs what Windows lacks.
            from inkdigits.batch.run import Work

            write = partial(_write_table, out, Work(shard=_part_of(shard), **named))
        command(*args, write=write, **others)

    return with_work


def _part_of(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, _, of = text.partition("/")
    if not (part.isdecimal() and of.isdecimal() and int(part) < int(of)):
        raise click.UsageError(f"--shard is {text!r}; it must be like 0/4, 1/4, 2/4 and 3/4")
    return int(part), int(of)


def _write_table(out: str, work: Work, names: Sequence[str], *, as_json: bool, **what: Any) -> None:
    """Read in bulk, with progress on a terminal, and say what was read."""
    from inkdigits.batch.run import read_in_bulk
    from inkdigits.batch.storage import as_path

    if any(name == STANDARD_INPUT or is_address(name) for name in names):
        raise click.UsageError("--out reads files and folders, not - or addresses")
    kind = "pictures" if what.get("regions") is None else "regions"
    with resumable(Path(f"{out.rstrip('/')}.parts")), progress_bar(quiet=as_json) as show:

        def report(done: Run) -> None:
            failed = f", {done.failed:,} cannot be read" if done.failed else ""
            show(done.pictures, done.expected, f"{done.rate:,.0f} {kind}/s{failed}")

        paths = [as_path(name) for name in names]
        found = read_in_bulk(paths, out, work=work, progress=report, **what)
    text = f"{found.pictures:,} {kind} in {out} ({found.rate:,.0f}/s): {summary(found.outcomes)}"
    shown = ("pictures", "failed", "failures", "outcomes", "model_version", "seconds")
    content = {"out": out, **{name: getattr(found, name) for name in shown}}
    answer(content, text, as_json=as_json)
    say_unmatched(found.unmatched)
    for source, error in found.failures:
        say(printable(f"{source}: {error}"))
    if found.failed > len(found.failures):
        say(f"and {found.failed - len(found.failures):,} more; the column error has them all")
    end_with_failures(found.failed, found.pictures, kind)


@click.command()
@click.argument("out")
@options.JSON
def merge(out: str, *, as_json: bool) -> None:
    """Put together the table that several commands have read with --shard.

    OUT is written only if each picture of the sources was read exactly once. A JSON file beside it
    says what was read, and with which model.
    """
    from inkdigits.batch.checkpoint import Checkpoint
    from inkdigits.batch.storage import told_as_batch_errors

    with told_as_batch_errors(), closing(Checkpoint(out, resume=True)) as checkpoint:
        counts = checkpoint.merge()
    answer(counts, f"{counts['pictures']:,} rows in {out}", as_json=as_json)
