"""Where many pictures come from: folders, archives and arrays, cut into shards.

The same source gives the same shards each time, so a run can be resumed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final, cast

from inkdigits.batch.archives import (
    PICTURE_SUFFIXES,
    Extent,
    Member,
    is_picture_name,
    tar_members,
    zip_members,
)
from inkdigits.batch.arrays import array_blocks, array_shape
from inkdigits.batch.shards import Place, Shard, bytes_of, grouped
from inkdigits.batch.storage import as_path, filesystem
from inkdigits.errors import DataError, UnreadableImageError
from inkdigits.ink.decode import DEFAULT_LIMITS, Limits

SHARD_PICTURES: Final = 512
# A shard ends earlier where its pictures have this many bytes, as far as that is known unread.
SHARD_BYTES: Final = 16 * 2**20

IDX_NAME: Final = re.compile(r"[.-]idx\d?(-ubyte)?(\.gz)?$")


@dataclass(frozen=True, slots=True)
class Source:
    """Something with pictures in it."""

    identity: Sequence[str | int]  # as JSON; tells whether it is the same as in an earlier run
    expected: int | None  # its pictures, where that is known; for the time left
    shards: Callable[[], Iterator[Shard]]


def open_sources(paths: Sequence[Path], limits: Limits = DEFAULT_LIMITS) -> list[Source]:
    """Return the sources of some paths, in their order; the name of a path says what kind it is.

    A folder stands for the pictures in it, at any depth, sorted. ``.zip``, ``.tar``, ``.tar.gz``
    and ``.tgz`` are archives, ``.npy`` is a NumPy array, names that end like MNIST's own
    (``-idx3-ubyte``, also ``.idx``), with ``.gz`` or without, are IDX. Any other is a picture,
    and pictures that follow each other are one source. ``limits`` reject larger pictures.

    Raises:
        DataError: an archive or array that is not one, or of an unsupported shape or type.

    >>> [source.expected for source in open_sources([Path("a.png"), Path("b.png")])]
    [2]
    """
    sources: list[Source] = []
    for kind, some in groupby(paths, _kind):
        if kind is None:
            files = list(some)
            entries = partial(_files, files, limits)
            sources.append(Source([str(path) for path in files], len(files), entries))
        else:
            sources += [kind(path, limits) for path in some]
    return sources


def holds_many(path: Path) -> bool:
    """Return whether a path is that of an archive or an array.

    >>> holds_many(Path("a.zip")), holds_many(Path("a.png"))
    (True, False)
    """
    return _kind(path) not in (None, _folder)


def _kind(path: Path) -> Callable[[Path, Limits], Source] | None:
    name = path.name.lower()
    if path.is_dir():
        return _folder
    if name.endswith(".zip"):
        return _zip
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        return _tar
    return _array if name.endswith(".npy") or IDX_NAME.search(name) else None


def _identity(path: Path) -> Sequence[str | int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return [str(path), status.st_size, status.st_mtime_ns]


def _files(paths: Sequence[Path], limits: Limits) -> Iterator[Shard]:
    return _shards(paths[0], ((str(path), _place(path, limits)) for path in paths))


def _place(path: Path, limits: Limits) -> Place:
    if filesystem(path) is None:
        return path
    try:
        return Extent.of(path, path.stat().st_size, limits)
    except FileNotFoundError:
        return UnreadableImageError(f"there is no {path}")


def _folder(path: Path, limits: Limits) -> Source:
    inside = partial(walk, path) if filesystem(path) is None else partial(_listing, path, limits)
    return Source([str(path)], sum(1 for _ in inside()), lambda: _shards(path, inside()))


def _listing(folder: Path, limits: Limits) -> Iterator[tuple[str, Place]]:
    """Yield the pictures below a folder of an object store, sorted."""
    store = filesystem(folder)
    for key, about in sorted(store.find(cast(Any, folder).path, detail=True).items()):
        if is_picture_name(key):
            name = store.unstrip_protocol(key)
            yield name, Extent.of(as_path(name), about["size"], limits)


def walk(folder: Path) -> Iterator[tuple[str, Place]]:
    """Yield the pictures in a folder in the order in which paths sort.

    >>> [str(error) for _, error in walk(Path("missing"))]
    ['the folder cannot be read: No such file or directory']
    """
    ahead = [(str(folder), True)]
    while ahead:
        name, is_folder = ahead.pop()
        path = Path(name)
        if not is_folder:
            yield str(path), path
            continue
        try:
            ahead += sorted(_listed(path), reverse=True)
        except OSError as error:
            yield name, UnreadableImageError(f"the folder cannot be read: {error.strerror}")


def _listed(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the pictures and folders in a folder, unsorted, and whether each is a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path, True
            # A broken link is an error when it is read. A pipe is left out: reading would block.
            elif is_picture_name(entry.name) and (
                entry.is_file() or (entry.is_symlink() and not entry.is_dir())
            ):
                yield entry.path, False


def _zip(path: Path, limits: Limits) -> Source:
    expected = sum(1 for _ in zip_members(path, limits))
    return Source(_identity(path), expected, partial(_archived, path, zip_members, limits))


def _tar(path: Path, limits: Limits) -> Source:
    next(tar_members(path, limits), None)  # A file of another kind is found before any work.
    return Source(_identity(path), None, partial(_archived, path, tar_members, limits))


def _archived(
    path: Path, members: Callable[[Path, Limits], Iterable[Member]], limits: Limits
) -> Iterator[Shard]:
    return _shards(path, ((f"{path}#{name}", place) for name, place in members(path, limits)))


def _array(path: Path, limits: Limits) -> Source:
    number, *shape = array_shape(path, limits)
    rows_per_shard = max(1, min(SHARD_PICTURES, SHARD_BYTES // math.prod(shape)))

    def shards() -> Iterator[Shard]:
        first = 0
        try:
            for block in array_blocks(path, limits, rows_per_shard):
                yield Shard([f"{path}#{first + i}" for i in range(len(block))], block)
                first += len(block)
        except DataError as error:
            yield Shard([str(path)], [UnreadableImageError(str(error))])
        if not number:
            yield from _shards(path, ())

    return Source(_identity(path), number, shards)


def _shards(path: Path, entries: Iterable[tuple[str, Place]]) -> Iterator[Shard]:
    explained = _explained(str(path), entries)
    for group in grouped(explained, SHARD_PICTURES, SHARD_BYTES, lambda entry: bytes_of(entry[1])):
        yield Shard([name for name, _ in group], [place for _, place in group])


def _explained(source: str, entries: Iterable[tuple[str, Place]]) -> Iterator[tuple[str, Place]]:
    """Yield the entries; one more says why the source ends early or has no pictures."""
    seen = False
    try:
        for entry in entries:
            seen = True
            yield entry
    except (DataError, OSError) as error:
        yield source, UnreadableImageError(str(error))
        return
    if not seen:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        yield source, UnreadableImageError(f"{source} holds no pictures ({suffixes})")
