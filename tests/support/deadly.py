"""Pictures that end the process that reads them, as a defect in a decoder would.

A module of its own, because processes that read import it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass


class DeadlyPicture(os.PathLike):
    def __fspath__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


@dataclass
class DeadlyShard:
    """A sound picture, a deadly one, a sound one."""

    sound: bytes

    def key(self) -> str:
        return "deadly"

    def names(self) -> list[str]:
        return list("abc")

    def pictures(self) -> Iterator[bytes | DeadlyPicture]:
        yield from (self.sound, DeadlyPicture(), self.sound)
