"""The pictures that a command names: files, folders, standard input and addresses."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import click

from inkdigits.cli.options import printable, say
from inkdigits.errors import ImageError
from inkdigits.ink.decode import DEFAULT_LIMITS

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

STANDARD_INPUT: Final = "-"
_SECONDS: Final = 30
_REDIRECTS: Final = 5


def is_address(name: str) -> bool:
    """Return whether a name is that of a picture on the Web."""
    return name.lower().startswith(("http://", "https://"))


def expand(names: Sequence[str]) -> Iterator[str]:
    """Yield names as they are, and the pictures in folders."""
    from inkdigits.batch.sources import PICTURE_SUFFIXES, holds_many, walk

    for name in names:
        path = Path(name)
        if not is_address(name) and ("://" in name or holds_many(path)):
            raise click.UsageError(f"{name} is read into a table; name one, as --out readings.csv")
        if is_address(name) or not path.is_dir():
            yield name
            continue
        inside = [picture for picture, _ in walk(path)]
        if not inside:
            kinds = ", ".join(sorted(PICTURE_SUFFIXES))
            raise click.ClickException(f"{path} holds no pictures ({kinds})")
        yield from inside


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

    until = time.monotonic() + _SECONDS
    agent = {"User-Agent": f"inkdigits/{version('inkdigits')}"}
    try:
        with urllib3.PoolManager(headers=agent, retries=False) as pool:
            return _followed(pool, address, until, _REDIRECTS)
    except urllib3.exceptions.HTTPError as error:
        raise ImageError(f"the address cannot be read ({type(error).__name__})") from error


def _followed(pool: PoolManager, address: str, until: float, redirects: int) -> bytes:
    left = max(0.001, until - time.monotonic())
    with pool.request(
        "GET", address, redirect=False, timeout=left, preload_content=False
    ) as response:
        moved = response.get_redirect_location()
        if not moved:
            return _body(response, until)
    try:
        address = urljoin(address, moved)
    except ValueError as error:
        raise ImageError(f"the address redirects to an invalid one: {error}") from error
    if not redirects:
        raise ImageError(f"the address redirects more than {_REDIRECTS} times")
    if not is_address(address):
        raise ImageError("the address redirects to one that is neither http nor https")
    return _followed(pool, address, until, redirects - 1)


def _body(response: BaseHTTPResponse, until: float) -> bytes:
    if response.status != 200:
        raise ImageError(f"the address answers with status {response.status}, not with a picture")
    content = bytearray()
    # One byte too many, which the reader says.
    while len(content) <= DEFAULT_LIMITS.max_bytes and (part := response.read1(65_536)):
        content += part
        if time.monotonic() > until:
            raise ImageError(f"the address took longer than {_SECONDS} seconds")
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
        say(f"--regions names {len(names):,} pictures that no SOURCE has, such as {min(names)}")


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
    if len(shown) > 1:
        say(summary(outcomes))
    end_with_failures(failed, pictures or len(shown))


def end_with_failures(failed: int, of: int, kind: str = "pictures") -> None:
    """End with exit code 1 where some cannot be read."""
    if failed:
        raise click.ClickException(f"{failed:,} of {of:,} {kind} cannot be read")
