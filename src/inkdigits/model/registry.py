"""A folder of models: a folder per version, and which of them is served.

``models/<name>/`` holds an artifact and its run.json. ``models/current`` is a symbolic link to one
of them, which is replaced atomically. ``models/promotions.jsonl`` says who changed it, when, and
by which figures. A service that reads ``models/current`` takes a change by itself.
"""

from __future__ import annotations

import getpass
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, NotRequired, TypedDict

import msgspec

from inkdigits.errors import ArtifactError, RegistryError
from inkdigits.model.artifact import ARTIFACT_NAME, ArtifactMetadata, read_artifact, read_metadata
from inkdigits.types import Json

CURRENT: Final = "current"
"""The link to the version that is served."""
PROMOTIONS: Final = "promotions.jsonl"
"""The file that records each change, one JSON object per line."""


class _Watch(TypedDict):
    readings: int
    max_rejected: NotRequired[float | None]
    max_latency_ms: NotRequired[float | None]


class _Change(msgspec.Struct, rename={"former": "from"}):
    action: Literal["promote", "rollback"]
    at: str
    former: str | None
    to: str
    model_version: str
    watch: _Watch | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One model of a folder."""

    name: str  # of its folder
    path: Path  # of its artifact
    metadata: ArtifactMetadata | None  # None where the artifact cannot be used
    problem: str | None  # why it cannot
    is_current: bool


class Registry:
    """The models of a folder. It is read anew with each call, so several processes may use it.

    >>> Registry(Path("none")).current is None
    True
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def current(self) -> str | None:
        """The name of the version that is served; None before the first is promoted."""
        link = self.folder / CURRENT
        return link.readlink().name if link.is_symlink() else None

    def versions(self) -> list[Version]:
        """Return every version, sorted by name; damaged ones too."""
        return [self.version(name) for name in self._names()]

    def version(self, name: str) -> Version:
        """Return the version of that name, or ``current``; a RegistryError if there is none."""
        named = (self.current or name) if name == CURRENT else name
        path = self.folder / named / ARTIFACT_NAME
        if Path(named).name != named or not path.is_file():
            known = ", ".join(self._names()) or "none"
            raise RegistryError(f"{self.folder} has no model {name!r}; it has {known}")
        is_current = named == self.current
        try:
            return Version(named, path, read_metadata(read_artifact(path)), None, is_current)
        except ArtifactError as error:
            return Version(named, path, None, str(error), is_current)

    def history(self) -> list[Json]:
        """Return the recorded changes, oldest first; a RegistryError if they cannot be read."""
        path = self.folder / PROMOTIONS
        try:
            lines = path.read_text("utf-8").splitlines()
            changes = [json.loads(line) for line in lines if line]
            msgspec.convert(changes, list[_Change])
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise RegistryError(f"{path} cannot be read: {error}") from error
        return changes

    @property
    def previous(self) -> str | None:
        """The version that a rollback returns to: the last good one before the current."""
        served: list[str] = []
        for change in self.history():
            if change["action"] == "promote":
                served += [name for name in (change["from"],) if name and not served]
                served.append(change["to"])
            elif len(served) > 1:
                served.pop()
        return served[-2] if len(served) > 1 else None

    def promote(self, name: str, record: Mapping[str, Any], by: str | None = None) -> Json:
        """Serve a version from now on; returns what is recorded: figures and reasons, and by whom.

        None is the user of this process. A RegistryError says why nothing has changed.
        """
        return self._change("promote", self.version(name), record, by)

    def rollback(self, record: Mapping[str, Any] | None = None, by: str | None = None) -> Json:
        """Serve the last good version before the current one again, as ``promote`` does."""
        name = self.previous
        if name is None:
            raise RegistryError(
                f"there is nothing to roll back to: {self.folder / PROMOTIONS} names no version "
                "before the current one"
            )
        return self._change("rollback", self.version(name), record or {}, by)

    def _names(self) -> list[str]:
        found = (path.parent.name for path in self.folder.glob(f"*/{ARTIFACT_NAME}"))
        return sorted(name for name in found if name != CURRENT)

    def _change(
        self, action: str, version: Version, record: Mapping[str, Any], by: str | None
    ) -> Json:
        if version.metadata is None:
            raise RegistryError(f"{version.name} cannot be served: {version.problem}")
        change = {
            "action": action,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": by or _user(),
            "from": self.current,
            "to": version.name,
            "model_version": version.metadata.model_version,
            **record,
        }
        link = self.folder / f".{CURRENT}.{os.getpid()}.{threading.get_ident()}"
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(version.name)
            with _appended(self.folder / PROMOTIONS, json.dumps(change) + "\n"):
                link.replace(self.folder / CURRENT)
        except OSError as error:
            if link.is_symlink():
                link.unlink()
            raise RegistryError(
                f"{self.folder} cannot be written to ({error.strerror}), so nothing was changed; "
                f"the current model is {self.current}"
            ) from error
        return change


@contextmanager
def _appended(path: Path, line: str) -> Iterator[None]:
    """Append a line to a file, and remove it again if an error leaves the block."""
    import fcntl  # which Windows lacks; models are listed there all the same

    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        size = file.seek(0, os.SEEK_END)
        try:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
            yield
        except OSError:
            file.truncate(size)
            raise


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in many containers
        return str(os.getuid())
