"""The spool keeps what it took: torn, damaged, full, shared by processes, or killed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from inkdigits.errors import ConfigError, SpoolError, SpoolFullError
from inkdigits.log import spool as spool_module
from inkdigits.log.spool import Spool, read_frames

SPAWN = multiprocessing.get_context("spawn")


def drained(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    spool.drain(found.extend)
    return found


def segments(spool: Spool, pattern: str = "*.spool") -> list[Path]:
    return sorted(spool.directory.glob(pattern))


def test_payloads_come_back_in_order_and_then_are_gone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    payloads = [f"number {n}".encode() * n for n in range(500)]
    for payload in payloads:
        spool.append(payload)
    assert not spool.is_empty()
    assert drained(spool) == payloads
    assert spool.is_empty()
    assert spool.size_bytes() == 0
    assert drained(spool) == []


def test_a_frame_is_a_magic_a_length_a_checksum_and_the_payload(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"seven")
    (segment,) = segments(spool)
    assert segment.read_bytes() == b"INK1" + struct.pack(">II", 5, zlib.crc32(b"seven")) + b"seven"


def test_another_process_finds_what_the_first_one_left(tmp_path: Path) -> None:
    Spool(tmp_path).append(b"first")
    Spool(tmp_path).append(b"second")
    assert drained(Spool(tmp_path)) == [b"first", b"second"]


@pytest.mark.parametrize("kept", [1, 4, 11, 12, 13, 15])
def test_a_torn_last_frame_is_dropped_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    spool = Spool(tmp_path)
    spool.append(b"whole")
    (segment,) = segments(spool)
    torn = segment.read_bytes()[:kept].replace(b"whole", b"other")
    segment.write_bytes(segment.read_bytes() + torn)
    with caplog.at_level(logging.WARNING, "inkdigits.log.spool"):
        assert drained(spool) == [b"whole"]
    assert "torn" in caplog.text
    assert spool.is_empty()


def test_a_tail_of_zeros_is_a_torn_frame_too() -> None:
    # What a file system may leave that had enlarged the file but not yet written it.
    frame = b"INK1" + struct.pack(">II", 3, zlib.crc32(b"abc")) + b"abc"
    assert read_frames(frame + bytes(40)) == ([b"abc"], "torn")


def test_a_damaged_segment_gives_its_whole_frames_and_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    for payload in (b"first", b"second", b"third"):
        spool.append(payload)
    (segment,) = segments(spool)
    data = bytearray(segment.read_bytes())
    data[data.index(b"second")] ^= 1
    segment.write_bytes(data)
    with caplog.at_level(logging.ERROR, "inkdigits.log.spool"):
        assert drained(spool) == [b"first", b"third"]
    assert "damaged" in caplog.text
    assert segments(spool, "*.damaged")[0].read_bytes() == data
    assert drained(spool) == []


def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit_bytes=100)
    for _ in range(5):
        spool.append(b"8 bytes.")
    with pytest.raises(SpoolFullError, match="100 bytes of at most 100"):
        spool.append(b"")
    assert drained(spool) == [b"8 bytes."] * 5
    spool.append(b"there is room again")


def test_the_limit_is_for_all_processes_together(tmp_path: Path) -> None:
    Spool(tmp_path).append(bytes(500))
    with pytest.raises(SpoolFullError):
        Spool(tmp_path, limit_bytes=600).append(bytes(100))


def test_what_could_not_be_written_is_handed_on_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"stubborn")

    def refuse(_: Sequence[bytes]) -> None:
        raise ConnectionResetError("the database went away")

    with pytest.raises(ConnectionResetError, match="the database went away"):
        spool.drain(refuse)
    assert drained(spool) == [b"stubborn"]


def test_appending_goes_on_while_another_drains(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"before")
    found: list[bytes] = []

    def write(payloads: Sequence[bytes]) -> None:
        found.extend(payloads)
        if payloads == [b"before"]:
            spool.append(b"meanwhile")

    assert spool.drain(write) == 1
    assert spool.drain(write) == 1
    assert found == [b"before", b"meanwhile"]


def test_one_that_does_not_wait_leaves_the_draining_to_the_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(b"once")
    other: list[int] = []

    def write(_: Sequence[bytes]) -> None:
        other.append(Spool(tmp_path).drain(lambda _: None, wait=False))

    assert spool.drain(write) == 1
    assert other == [0]


def test_a_long_spool_is_many_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "SEGMENT_BYTES", 100)
    spool = Spool(tmp_path)
    payloads = [bytes([n]) * 50 for n in range(10)]
    for payload in payloads:
        spool.append(payload)
    assert len(segments(spool)) == 5
    assert drained(spool) == payloads


def test_a_disk_that_takes_half_a_frame_keeps_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.append(b"whole")
    write = os.write

    def write_half(descriptor: int, data: bytes) -> int:
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_half)
        with pytest.raises(SpoolError, match="No space left"):
            spool.append(b"not to be had")
    spool.append(b"whole again")
    assert drained(spool) == [b"whole", b"whole again"]


def test_a_rejected_payload_is_set_aside_and_counts(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.reject(b"poison")
    assert spool.is_empty()
    assert read_frames((tmp_path / "rejected.frames").read_bytes()) == ([b"poison"], None)
    assert spool.size_bytes() == 12 + len(b"poison")


def test_a_spool_that_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="can't be used"):
        Spool(tmp_path / "file")
    with pytest.raises(ConfigError, match="positive"):
        Spool(tmp_path, limit_bytes=0)


def test_only_its_user_may_read_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    spool.append(b"private")
    assert spool.directory.stat().st_mode & 0o077 == 0
    assert segments(spool)[0].stat().st_mode & 0o077 == 0


def append_many(directory: Path, name: str, count: int) -> None:
    spool = Spool(directory)

    def work(thread: int) -> None:
        for n in range(count):
            spool.append(f"{name} {thread} {n}".encode())

    threads = [threading.Thread(target=work, args=(t,)) for t in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_many_threads_and_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    processes = [SPAWN.Process(target=append_many, args=(tmp_path, f"p{n}", 40)) for n in range(2)]
    for process in processes:
        process.start()
    found: list[bytes] = []
    spool = Spool(tmp_path)
    while any(process.is_alive() for process in processes):
        spool.drain(found.extend)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    spool.drain(found.extend)
    expected = {f"p{p} {t} {n}".encode() for p in range(2) for t in range(3) for n in range(40)}
    assert len(found) == len(expected)
    assert set(found) == expected
    one_writer = [payload for payload in found if payload.startswith(b"p1 2 ")]
    assert one_writer == [f"p1 2 {n}".encode() for n in range(40)]


def append_until_killed(directory: Path, acknowledged: Path) -> None:
    spool = Spool(directory)
    with acknowledged.open("ab", buffering=0) as file:
        for n in range(10**6):
            spool.append(b"%d" % n)
            file.write(b"%d\n" % n)


def test_what_was_acknowledged_before_kill_9_is_there_after(tmp_path: Path) -> None:
    acknowledged = tmp_path / "acknowledged"
    acknowledged.touch()
    process = SPAWN.Process(target=append_until_killed, args=(tmp_path / "spool", acknowledged))
    process.start()
    while acknowledged.stat().st_size < 200:
        assert process.is_alive()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    found = drained(Spool(tmp_path / "spool"))
    promised = acknowledged.read_bytes().splitlines()
    assert found[: len(promised)] == promised
    assert len(found) - len(promised) in {0, 1}  # one may be written and not yet acknowledged


def die_draining(directory: Path, written: Path) -> None:
    def write(payloads: Sequence[bytes]) -> None:
        written.write_bytes(b"\n".join(payloads))
        os.kill(os.getpid(), signal.SIGKILL)

    Spool(directory).drain(write)


def test_a_process_killed_while_draining_leaves_all_to_the_next(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    for payload in (b"one", b"two"):
        spool.append(payload)
    process = SPAWN.Process(target=die_draining, args=(spool.directory, tmp_path / "written"))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "written").read_bytes() == b"one\ntwo"
    assert drained(spool) == [b"one", b"two"]
