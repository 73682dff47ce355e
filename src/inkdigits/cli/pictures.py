"""What predict and read share: the pictures that they name, their table, and --out for many."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial, wraps
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import click

from inkdigits.cli import options
from inkdigits.cli.options import answer, counted, option, printable, progress_bar, resumable, say
from inkdigits.errors import ImageError
from inkdigits.ink.decode import DEFAULT_LIMITS

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

    from inkdigits.batch.run import Run

STANDARD_INPUT: Final = "-"
_SECONDS: Final = 30
_REDIRECTS: Final = 5


def is_address(name: str) -> bool:
    """Return whether a name is that of a picture on the Web."""
    return name.lower().startswith(("http://", "https://"))


def expand(names: Sequence[str]) -> Iterator[str]:
    """Yield names as they are, and the pictures in folders."""
    from inkdigits.batch.sources import Source

    for name in names:
        source = Source(Path(name))
        if not is_address(name) and ("://" in name or source.kind):
            raise click.UsageError(f"{name} needs an option --out, such as --out readings.csv")
        if is_address(name) or not source.path.is_dir():
            yield name
            continue
        for inside, place, _ in source.pictures():
            if inside == str(source.path):
                raise click.ClickException(str(place))
            yield inside


def opened(name: str) -> Path | bytes:
    """Return the picture of a name, as a reader takes it; an ImageError where there is none."""
    if name == STANDARD_INPUT:
        # One byte too many, which the reader says.
        return sys.stdin.buffer.read(DEFAULT_LIMITS.max_bytes + 1)
    return _fetched(name) if is_address(name) else Path(name)


def stem_of(name: str) -> str:
    """Return what files about a picture are named by."""
    path = name.partition("?")[0] if is_address(name) else name
    return "stdin" if name == STANDARD_INPUT else Path(path).stem or "picture"


def _fetched(address: str) -> bytes:
    """Fetch a picture, within limits on bytes, seconds and redirects."""
    import urllib3
    from urllib3 import exceptions

    until = time.monotonic() + _SECONDS
    agent = {"User-Agent": f"inkdigits/{version('inkdigits')}"}
    try:
        with urllib3.PoolManager(headers=agent, retries=False) as pool:
            return _followed(pool, address, until)
    except exceptions.ReadTimeoutError as error:
        raise ImageError(f"the download took longer than {_SECONDS} seconds") from error
    except exceptions.HTTPError as error:
        # Before the reason are the connection, as urllib3 names it, and the number of the error.
        why = str(error).rpartition(": ")[2].rpartition("] ")[2]
        raise ImageError(f"the URL cannot be read: {why}") from error


def _followed(pool: PoolManager, address: str, until: float) -> bytes:
    """Follow redirects; urllib3 would read the body of each, and give each the whole time."""
    from urllib3 import Timeout

    for _ in range(_REDIRECTS + 1):
        left = Timeout(total=max(0.001, until - time.monotonic()))
        with pool.request(
            "GET", address, redirect=False, timeout=left, preload_content=False
        ) as response:
            moved = response.get_redirect_location()
            if not moved:
                return _body(response, until)
        try:
            address = urljoin(address, moved)
        except ValueError as error:
            raise ImageError(f"the URL redirects to an invalid URL: {error}") from error
        if not is_address(address):
            raise ImageError("the URL redirects to a URL that is neither http nor https")
    raise ImageError(f"the URL redirects more than {_REDIRECTS} times")


def _body(response: BaseHTTPResponse, until: float) -> bytes:
    if response.status != 200:
        raise ImageError(f"the server returned status {response.status} instead of a picture")
    content = bytearray()
    # One byte too many, which the reader says.
    while len(content) <= DEFAULT_LIMITS.max_bytes and (part := response.read1(65_536)):
        content += part
        if time.monotonic() > until:
            raise ImageError(f"the download took longer than {_SECONDS} seconds")
    return bytes(content)


def summary(outcomes: Mapping[str, int]) -> str:
    """Return how many were accepted, are for review, and were rejected for which reason."""
    rejected = Counter(outcomes)
    accepted, review = rejected.pop("accept", 0), rejected.pop("review", 0)
    reasons = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in rejected.most_common())
    why = f" ({reasons})" if reasons else ""
    return f"{accepted:,} accepted, {review:,} for review, {rejected.total():,} rejected{why}"


def say_unmatched(names: Collection[str]) -> None:
    """Name pictures of --regions that are not read."""
    if names:
        unmatched = counted(len(names), "picture")
        say(f"--regions names {unmatched} that are not in SOURCE, such as {min(names)}")


def print_table(
    names: Sequence[str],
    head: str,
    readings: Iterable[Any],
    line: Callable[[Any], str],
    pictures: int | None = None,
) -> None:
    """Print a line per reading or error as it comes, and then how many were accepted."""
    shown = [printable(name) for name in names]
    width = max(map(len, shown))
    click.echo(f"{'file':<{width}}  {head}")
    outcomes: Counter[str] = Counter()
    failed = 0
    for name, reading in zip(shown, readings, strict=True):
        if isinstance(reading, Exception):
            failed += 1
            click.echo(f"{name:<{width}}  error: {reading}")
        else:
            outcomes[reading.reason or reading.decision] += 1
            click.echo(f"{name:<{width}}  {line(reading)}")
    if len(shown) > 1 and outcomes:
        say(summary(outcomes))
    end_with_failures(failed, pictures or len(shown))


def end_with_failures(failed: int, of: int, kind: str = "picture") -> None:
    """End with exit code 1 where some cannot be read."""
    if failed:
        raise click.ClickException(f"{failed:,} of {counted(of, kind)} cannot be read")


def bulk_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --out and what belongs to it; the command gets ``write``, None without --out."""

    @option(
        "--out",
        "Write one row per reading to this file or URL (.parquet, .csv or .jsonl). If the name "
        "ends in /, the command writes a folder of Parquet files.",
    )
    @option("--overwrite", "With --out: replace an existing table.", is_flag=True)
    @option(
        "--workers",
        "With --out: number of worker processes.  [default: one per core]",
        options.PROCESSES,
    )
    @option(
        "--engine",
        "With --out: read on this machine (local) or on a Ray cluster (ray).  [default: local]",
        click.Choice(["local", "ray"]),
        None,
    )
    @option("--address", "With --engine ray: cluster address, such as auto or ray://HOST:10001.")
    @option(
        "--shard",
        "With --out: read only part I of N (I is 0 to N-1). inkdigits merge joins the parts.",
        metavar="I/N",
    )
    @wraps(command)
    def with_work(*args: Any, out: str | None, shard: str | None, **others: Any) -> None:
        switches = ("overwrite", "workers", "engine", "address")
        overwrite, workers, engine, address = (others.pop(name) for name in switches)
        if out is None and (shard or overwrite or workers or engine or address):
            raise click.UsageError(f"--{', --'.join(switches)} and --shard need --out")
        is_ray = engine == "ray"
        if (address and not is_ray) or (workers and is_ray):
            raise click.UsageError("--address needs --engine ray; --workers is for local processes")
        write = None
        if out is not None:
            # Only here, since it needs what Windows lacks.
            from inkdigits.batch.engines import LocalEngine, RayEngine

            start = partial(RayEngine, address) if is_ray else partial(LocalEngine, workers)
            how = {"engine": start, "shard": _part_of(shard), "overwrite": overwrite}
            write = partial(_write_table, out, **how)
        command(*args, write=write, **others)

    return with_work


def _part_of(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    part, _, of = text.partition("/")
    if not (part.isdecimal() and of.isdecimal() and int(part) < int(of)):
        raise click.UsageError(f"--shard is {text!r}; it must be I/N with I below N, such as 0/4")
    return int(part), int(of)


def _write_table(out: str, names: Sequence[str], *, as_json: bool, **what: Any) -> None:
    """Read in bulk, with progress on a terminal, and say what was read."""
    from inkdigits.batch.run import read_in_bulk
    from inkdigits.batch.sources import Source
    from inkdigits.batch.storage import as_path

    if any(name == STANDARD_INPUT or is_address(name) for name in names):
        raise click.UsageError("--out cannot read standard input or http URLs")
    kind = "picture" if what.get("regions") is None else "region"
    began = time.perf_counter()

    def rate(run: Run) -> str:
        return f"{run.read / (time.perf_counter() - began):,.0f}"

    how = f"to continue, run the same command (state in {out.rstrip('/')}.parts)"
    with resumable(how), progress_bar(quiet=as_json) as show:

        def report(run: Run) -> None:
            failed = f", {run.failed:,} cannot be read" if run.failed else ""
            show(run.rows, run.expected, f"{rate(run)} {kind}s/s{failed}")

        sources = [Source(as_path(name)) for name in names]
        run = read_in_bulk(sources, out, progress=report, **what)
    content = {"model_version": run.model_version, "seconds": time.perf_counter() - began}
    read = f"{counted(run.rows, kind)} in {out} ({rate(run)}/s)"
    say_unmatched(run.unmatched)
    if what["shard"]:
        read = f"{counted(run.rows, kind)} of {out} ({rate(run)}/s), which inkdigits merge joins"
    _say_run(run, read, as_json=as_json, **content)
    if what["shard"] is None:
        end_with_failures(run.failed, run.rows, kind)


def _say_run(run: Run, text: str, *, as_json: bool, **more: Any) -> None:
    content = {"out": str(run.out), "pictures": run.rows, "failed": run.failed}
    content |= {"failures": run.failures, "outcomes": run.outcomes, **more}
    answer(content, f"{text}: {summary(run.outcomes)}" if run.outcomes else text, as_json=as_json)
    for source, error in run.failures:
        say(printable(f"{source}: {error}"))
    if run.failed > len(run.failures) > 0:
        say(f"and {run.failed - len(run.failures):,} more; the column error lists all of them")


@click.command()
@click.argument("out")
@options.JSON
def merge(out: str, *, as_json: bool) -> None:
    """Merge the parts that were read with --shard into the table OUT.

    The command writes OUT only if each picture was read exactly once. A JSON file beside OUT
    lists the sources and the model.
    """
    from inkdigits.batch.run import Run
    from inkdigits.batch.storage import told_as_batch_errors

    with told_as_batch_errors():
        run = Run(out)
        run.publish()
    _say_run(run, f"{counted(run.rows, 'row')} in {out}", as_json=as_json)
