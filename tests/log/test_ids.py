from __future__ import annotations

import time
import uuid

import pytest

from inkdigits.log.ids import new_id


def test_id_is_a_uuid_of_version_7_of_now() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_id())
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after


def test_layout_is_that_of_the_rfc(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half a millisecond after the moment of RFC 9562's example, appendix A.6.
    monkeypatch.setattr(time, "time_ns", lambda: 0x017F22E279B0 * 1_000_000 + 500_000)
    assert new_id().startswith("017f22e2-79b0-7800-")


def test_ids_of_different_moments_sort_by_time_and_none_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = time.time_ns()
    ids = []
    for microseconds in range(2000):
        monkeypatch.setattr(time, "time_ns", lambda now=moment + microseconds * 1000: now)
        ids.append(new_id())
    assert ids == sorted(ids)
    monkeypatch.setattr(time, "time_ns", lambda: moment)
    assert len({new_id() for _ in range(1000)}) == 1000
