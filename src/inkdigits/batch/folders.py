"""The pictures in a folder and those below it, sorted, however many there are."""

from __future__ import annotations

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
    """Each picture's path, as a name and as where it is, in the order in which paths sort.

    A picture is a file whose name says so (``archives.is_picture_name``). Links to folders aren't
    followed. A folder that can't be read comes as an error in its place.
    """
    # In every folder, files and folders together by name: as whole paths sort.
    unfinished = [(folder, _sorted_names(folder))]
    while unfinished:
        here, names = unfinished[-1]
        try:
            name, is_folder = next(names)
        except StopIteration:
            unfinished.pop()
        except OSError as error:
            unfinished.pop()
            yield here, UnreadableImageError(f"the folder can't be read: {error.strerror}")
        else:
            if is_folder:
                unfinished.append((here / name, _sorted_names(here / name)))
            else:
                yield here / name, here / name


def count(folder: Path) -> int:
    """How many pictures there are; folders that can't be read count as none."""
    total = 0
    unread: list[str | Path] = [folder]
    while unread:
        try:
            for entry, is_folder in _entries(unread.pop()):
                if is_folder:
                    unread.append(entry.path)
                else:
                    total += 1
        except OSError:
            continue
    return total


def _entries(folder: str | Path) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """Pictures and folders in a folder, unsorted, and whether each is a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry, True
            # A link that leads nowhere is told of when it is read. A pipe would be waited for.
            elif is_picture_name(entry.name) and (
                entry.is_file() or (entry.is_symlink() and not entry.is_dir())
            ):
                yield entry, False


def _sorted_names(folder: Path) -> Iterator[tuple[str, bool]]:
    """Names of pictures and folders in a folder, sorted, and whether each is a folder.

    Sorted as what is too large for memory is: in runs, kept in temporary files and merged.
    """
    runs: list[Iterable[tuple[str, bool]]] = []
    names: list[tuple[str, bool]] = []
    for entry, is_folder in _entries(folder):
        names.append((entry.name, is_folder))
        if len(names) == NAMES_IN_MEMORY:
            runs.append(_spilled(sorted(names)))
            names = []
    yield from heapq.merge(*runs, sorted(names))


def _spilled(names: list[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    """The same names from a temporary file, which goes when the iterator does."""
    file = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115 - closed below
    # JSON, because a name may hold a line's end, or bytes that aren't text.
    file.writelines(json.dumps(name) + "\n" for name in names)
    file.seek(0)

    def read() -> Iterator[tuple[str, bool]]:
        with file:
            for line in file:
                name, is_folder = json.loads(line)
                yield name, is_folder

    return read()
