"""The spool: records on disk that wait for their database, surviving `kill -9`, bounded in size.

A directory, shared by all processes of one machine that log to one database:

- ``<time>-<pid>-<random>.spool``: a process's own segment, to which it only appends;
- ``….sealed``: a segment that is being written to the database, by whoever holds ``flush.lock``;
- ``….damaged``: a segment with bytes that are no frame, kept for a person to look at;
- ``rejected.frames``: records that the database refuses for what they are, kept likewise;
- ``append.lock``, ``flush.lock``: held with flock(2), which the kernel releases when a process
  dies, however it dies.

A frame is ``INK1``, the payload's length and its CRC-32 (big-endian, 4 bytes each), the payload.
`append` returns after fsync. Nobody owns a segment: any process may drain what any other left, so
a dead process needs no mourning, and a live one doesn't keep what the others could write. Sealing
takes ``append.lock``, so a segment is never sealed inside of a frame unless its writer was killed
there; that torn last frame was never acknowledged, and is dropped with a line in the log.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inkdigits.errors import ConfigError, SpoolError, SpoolFullError, SpoolLockedError

SPOOL_LIMIT_BYTES: Final = 64 * 2**20
"""How much waits on disk by default, in bytes: over 100,000 predictions without pictures."""

BATCH: Final = 200
"""How many records are handed on at a time."""

SEGMENT_BYTES: Final = 4 * 2**20
"""A segment over this many bytes is followed by another, so that a long drain frees as it goes."""

_MAGIC: Final = b"INK1"
_HEADER: Final = struct.Struct(">4sII")
_LOCKS: Final = ("append.lock", "flush.lock")
_log = logging.getLogger(__name__)


class Spool:
    """Payloads in a directory, appended by many processes and threads, drained by one at a time.

    Args:
        directory: made with its parents, for its user alone, when it isn't there.
        limit_bytes: of all files in the directory together; over it, `append` refuses.

    Raises:
        ConfigError: the directory can't be made or written, or the limit isn't positive.
    """

    def __init__(self, directory: Path | str, limit_bytes: int = SPOOL_LIMIT_BYTES) -> None:
        if limit_bytes <= 0:
            raise ConfigError(f"the spool's limit is a positive number of bytes: {limit_bytes}")
        self.directory = Path(directory)
        self.limit_bytes = limit_bytes
        self._segment = ""
        self._segment_pid = 0
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked("append.lock"):
                pass
        except (OSError, SpoolError) as error:
            raise ConfigError(f"the spool {self.directory} can't be used: {error}") from error

    def append(self, payload: bytes) -> None:
        """Keep a payload; it is on the disk when this returns.

        Raises:
            SpoolFullError: the directory would exceed ``limit_bytes``; nothing is kept.
            SpoolError: the disk refuses; nothing is kept.
        """
        frame = _frame(payload)
        with self._locked("append.lock"):
            waiting = self.size_bytes()
            if waiting + len(frame) > self.limit_bytes:
                raise SpoolFullError(
                    f"the spool holds {waiting:,} bytes of at most {self.limit_bytes:,}; "
                    f"there is no room for {len(frame):,} more"
                )
            descriptor = self._append_frame(self._own_segment(), frame)
        # Outside of the lock, so that the appends of many threads and processes sync together.
        self._sync_and_close(descriptor)

    def drain(self, write: Callable[[Sequence[bytes]], None], *, wait: bool = True) -> int:
        """Hand all payloads to ``write``, in each segment's order, and then forget them.

        A payload is forgotten only after ``write`` returned; when ``write`` raises, or the
        process dies, it will be handed on again, so ``write`` must bear repetition.

        Args:
            write: takes up to BATCH payloads.
            wait: whether to wait while another drains, or leave it to the other and return 0.

        Returns:
            How many payloads were handed on.

        Raises:
            SpoolError: the disk refuses.
        """
        if self.is_empty():
            return 0
        count = 0
        try:
            with self._locked("flush.lock", wait=wait):
                with self._locked("append.lock"), self._explained("sealed"):
                    for path in self.directory.glob("*.spool"):
                        path.rename(path.with_suffix(".sealed"))
                for path in sorted(self.directory.glob("*.sealed")):
                    count += self._drain_segment(path, write)
        except SpoolLockedError:
            return 0
        return count

    def reject(self, payload: bytes) -> None:
        """Set aside, for a person to look at, a payload that the database refuses for good."""
        with self._locked("append.lock"):
            descriptor = self._append_frame("rejected.frames", _frame(payload))
        self._sync_and_close(descriptor)

    def size_bytes(self) -> int:
        """What the directory holds, in bytes: what waits, and what was set aside."""
        return sum(size for name, size in self._files() if name not in _LOCKS)

    def is_empty(self) -> bool:
        """Whether nothing waits for the database."""
        return not any(name.endswith((".spool", ".sealed")) for name, _ in self._files())

    def _files(self) -> Iterator[tuple[str, int]]:
        with self._explained("listed"):
            entries = list(self.directory.iterdir())
        for entry in entries:
            try:
                yield entry.name, entry.stat().st_size
            except FileNotFoundError:
                continue  # drained since it was listed: it holds nothing any more

    def _own_segment(self) -> str:
        # A forked process must not go on with its parent's segment: the two could tear a frame in
        # its middle. A drained segment is followed by a new one, for its rename took its name.
        path = self.directory / self._segment
        renew = self._segment_pid != os.getpid() or not path.is_file()
        if renew or path.stat().st_size >= SEGMENT_BYTES:
            self._segment_pid = os.getpid()
            self._segment = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.spool"
        return self._segment

    def _append_frame(self, name: str, frame: bytes) -> int:
        """Write a frame whole or not at all; returns the descriptor, for the caller to sync."""
        path = self.directory / name
        with self._explained("written"):
            is_new = not path.exists()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                _write_whole(descriptor, frame)
                if is_new:
                    _sync_directory(self.directory)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _sync_and_close(self, descriptor: int) -> None:
        try:
            with self._explained("synced"):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _drain_segment(self, path: Path, write: Callable[[Sequence[bytes]], None]) -> int:
        with self._explained("read"):
            payloads, fault = read_frames(path.read_bytes())
        for start in range(0, len(payloads), BATCH):
            write(payloads[start : start + BATCH])
        with self._explained("emptied"):
            if fault == "damaged":
                kept = path.with_suffix(".damaged")
                _log.error("a segment of the spool is damaged; it is kept as %s", kept.name)
                path.rename(kept)
            else:
                if fault == "torn":
                    _log.warning("dropped a torn last frame of the spool's segment %s", path.name)
                path.unlink()
            _sync_directory(self.directory)
        return len(payloads)

    @contextmanager
    def _explained(self, done: str) -> Iterator[None]:
        """Turn what the disk has against it into a SpoolError."""
        try:
            yield
        except OSError as error:
            raise SpoolError(f"the spool {self.directory} can't be {done}: {error}") from error

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Hold a lock between threads and processes; SpoolLockedError if it's not waited for."""
        with self._explained("locked"):
            descriptor = os.open(self.directory / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise SpoolLockedError from error
            try:
                yield
            finally:
                # Said explicitly: a process forked meanwhile holds the same lock until it is.
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)


def _frame(payload: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


def read_frames(data: bytes) -> tuple[list[bytes], str | None]:
    """The payloads of a segment, and what is wrong with it.

    Returns:
        The payloads that are whole, in order; and None when all are, "torn" when the segment ends
        inside of a frame or in zeros (a file that grew but wasn't written), "damaged" when it has
        other bytes that are no frame. After damage the reading goes on at the next frame.
    """
    payloads: list[bytes] = []
    damaged = False
    position = 0
    while position < len(data):
        payload, end = _frame_at(data, position)
        if payload is not None:
            payloads.append(payload)
            position = end
            continue
        following = data.find(_MAGIC, position + 1)
        while following >= 0 and _frame_at(data, following)[0] is None:
            following = data.find(_MAGIC, following + 1)
        if following < 0:
            is_torn = end > len(data) or not any(data[position:])
            return payloads, "damaged" if damaged or not is_torn else "torn"
        damaged = True
        position = following
    return payloads, "damaged" if damaged else None


def _frame_at(data: bytes, position: int) -> tuple[bytes | None, int]:
    """The payload of a whole frame or None, and where the frame ends or should have ended."""
    start = position + _HEADER.size
    if start > len(data):
        is_header = data[position : position + 4] == _MAGIC[: len(data) - position]
        return None, start if is_header else position
    magic, length, checksum = _HEADER.unpack_from(data, position)
    payload = data[start : start + length]
    if magic != _MAGIC:
        return None, position
    if len(payload) < length or zlib.crc32(payload) != checksum:
        return None, start + length
    return payload, start + length


def _write_whole(descriptor: int, frame: bytes) -> None:
    """Append a frame; when the disk takes only a part of it, take that back and raise OSError."""
    before = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(frame):
            written += os.write(descriptor, frame[written:])
    except OSError:
        os.ftruncate(descriptor, before)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
