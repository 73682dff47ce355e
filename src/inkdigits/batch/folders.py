"""The pictures in a folder and those below it, sorted, however many there are."""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from inkdigits.batch.archives import is_picture_name
from inkdigits.errors import UnreadableImageError

# Names of one folder that are sorted in memory; more go through temporary files.
NAMES_IN_MEMORY: Final = 100_000


def walk(folder: Path) -> Iterator[tuple[Path, Path | UnreadableImageError]]:
    """Yield the path of each picture twice, as a name and as a place, in sorted order.

    A picture is a file whose name says so (``archives.is_picture_name``). Links to folders are not
    followed. A folder that cannot be read comes as an error in its place.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "a.png").touch()
    ...     (Path(folder) / "notes.txt").touch()
    ...     print([name.name for name, _ in walk(Path(folder))], count(Path(folder)))
    ['a.png'] 1
    """
    # Whole paths sort like the names in every folder, files and folders together.
    open_folders = [(folder, _sorted_names(folder))]
    while open_folders:
        here, names = open_folders[-1]
        try:
            name, is_folder = next(names)
        except StopIteration:
            open_folders.pop()
        except OSError as error:
            open_folders.pop()
            yield here, UnreadableImageError(f"the folder cannot be read: {error.strerror}")
        else:
            if is_folder:
                open_folders.append((here / name, _sorted_names(here / name)))
            else:
                yield here / name, here / name


def count(folder: Path) -> int:
    """Return how many pictures there are; folders that cannot be read count as none.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     count(Path(folder))
    0
    """
    total = 0
    unread: list[str | Path] = [folder]
    while unread:
        for entry, is_folder in _readable_entries(unread.pop()):
            if is_folder:
                unread.append(entry.path)
            else:
                total += 1
    return total


def _entries(folder: str | Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Yield the pictures and folders in a folder, unsorted, and whether each is a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry, True
            # A broken link is an error when it is read. A pipe is left out: reading would block.
            elif is_picture_name(entry.name) and (
                entry.is_file() or (entry.is_symlink() and not entry.is_dir())
            ):
                yield entry, False


def _readable_entries(folder: str | Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
    with contextlib.suppress(OSError):
        yield from _entries(folder)


def _sorted_names(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yield the names that ``_entries`` finds, sorted by merging sorted runs."""
    runs: list[Iterable[tuple[str, bool]]] = []
    names: list[tuple[str, bool]] = []
    for entry, is_folder in _entries(folder):
        names.append((entry.name, is_folder))
        if len(names) == NAMES_IN_MEMORY:
            runs.append(_spilled(sorted(names)))
            names = []
    yield from heapq.merge(*runs, sorted(names))


def _spilled(names: list[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    """Return the names from a temporary file, which is deleted with the iterator."""
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 - closed below
    # JSON, because a name may hold a line's end, or bytes that are not text.
    file.writelines(json.dumps(name) + "\n" for name in names)
    file.seek(0)

    def read() -> Iterator[tuple[str, bool]]:
        with file:
            for line in file:
                name, is_folder = json.loads(line)
                yield name, is_folder

    return read()
