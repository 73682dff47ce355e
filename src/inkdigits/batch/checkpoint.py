"""A bulk run's work so far, in a folder beside the file that it will become.

``results.csv.parts`` holds one file for each chunk that has been read, and what the run is of. Each
is written under another name and renamed, and carries a checksum, so that one cut off by a crash or
a power failure is read again. Only when all are there is the result put together, under another
name, and renamed; so a result is whole or not there.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from inkdigits.batch.writers import Columns, Form, write
from inkdigits.errors import BatchError
from inkdigits.model.artifact import write_atomically

FAILURES_KEPT: Final = 10
"""How many pictures that can't be read are named at the end."""

_RUN: Final = "run.json"


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """What is counted of a chunk.

    Attributes:
        number: the chunk's place in the run.
        pictures: how many it has.
        failed: how many of them can't be read.
        failures: (source, error) of the first of those.
    """

    number: int
    pictures: int
    failed: int
    failures: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, number: int, columns: Columns) -> ChunkDone:
        """Counted from the columns."""
        failures = [
            (source, error)
            for source, error in zip(columns["source"], columns["error"], strict=True)
            if error is not None
        ]
        return cls(number, len(columns["source"]), len(failures), tuple(failures[:FAILURES_KEPT]))


class Unfinished:
    """The folder of a run under way; one process at a time has it.

    Args:
        out: the file that the run will become.
        resume: go on with what is there; otherwise it must not be.

    Raises:
        BatchError: there is an unfinished run and ``resume`` isn't asked for, or the reverse; or
            another process is at it; or the folder can't be written.
    """

    def __init__(self, out: Path, *, resume: bool) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")
        known = (self.folder / _RUN).is_file()
        if resume and not known:
            raise BatchError(f"nothing to resume: there is no {self.folder}")
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock: IO[bytes] = (self.folder / "lock").open("wb")
        except OSError as error:
            raise BatchError(f"{self.folder} can't be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise BatchError(f"another process is writing {out}") from error
        if known and not resume:
            self._lock.close()
            raise BatchError(
                f"{self.folder} holds an unfinished run: go on with it by --resume, or delete it"
            )

    def close(self) -> None:
        """Let another process have it."""
        self._lock.close()

    def begin(self, run: dict[str, Any]) -> None:
        """Note what the run is of, or compare it with what was noted.

        Args:
            run: whatever the parts depend on, as JSON.

        Raises:
            BatchError: the unfinished run is of something else; the message names what.
        """
        path = self.folder / _RUN
        if not path.is_file():
            write_atomically(path, json.dumps(run).encode())
            return
        try:
            known = json.loads(path.read_bytes())
        except ValueError as error:
            raise BatchError(f"can't resume: {path} is damaged; delete {self.folder}") from error
        other = [name for name in run if known.get(name) != run[name]]
        if other:
            raise BatchError(
                f"can't resume: the {' and the '.join(other)} changed since {self.folder} was "
                f"begun ({known.get(other[0])!r}, now {run[other[0]]!r})"
            )

    def done(self, number: int, key: str) -> ChunkDone | None:
        """What a chunk came to, if it was read; None if it is to be read.

        Raises:
            BatchError: another chunk was read under that number, so the source has changed.
        """
        content = _checked(_part(self.folder, number))
        if content is None:
            return None
        part = json.loads(content)
        if part["key"] != key:
            raise BatchError(
                f"can't resume: the pictures around {part['columns']['source'][0]} are others "
                f"than when {self.folder} was begun"
            )
        return ChunkDone.of(number, part["columns"])

    def finish(self, form: Form, parts: int) -> None:
        """Put the parts together as the result, and delete them.

        Raises:
            BatchError: a part is missing or damaged, or the result can't be written.
        """
        whole = self.folder / "whole"
        try:
            with whole.open("wb") as file:
                write(form, file, self._columns(parts))
                file.flush()
                os.fsync(file.fileno())
            whole.replace(self.out)
            shutil.rmtree(self.folder)
        except OSError as error:
            raise BatchError(f"{self.out} can't be written: {error.strerror}") from error

    def _columns(self, parts: int) -> Iterator[Columns]:
        for number in range(parts):
            content = _checked(_part(self.folder, number))
            if content is None:
                raise BatchError(f"{_part(self.folder, number)} was changed by another program")
            columns: Columns = json.loads(content)["columns"]
            yield columns


def write_part(folder: Path, number: int, key: str, columns: Columns) -> None:
    """Keep what was read of a chunk.

    Raises:
        BatchError: it can't be written.
    """
    content = json.dumps({"key": key, "columns": columns}).encode()
    try:
        write_atomically(_part(folder, number), b"%08x\n" % zlib.crc32(content) + content)
    except OSError as error:
        raise BatchError(f"{folder} can't be written: {error.strerror}") from error


def _part(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.json"


def _checked(path: Path) -> bytes | None:
    """A part's content; None where it is missing, or isn't what was written."""
    try:
        checksum, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return content if checksum == b"%08x" % zlib.crc32(content) else None
