"""Workers are killed and models replaced under load: benchmarks/chaos.py for some seconds."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks at /proc")


@pytest.mark.timeout(600)
def test_no_answer_is_wrong_and_only_a_killed_workers_requests_are_lost(benchmarks: Any) -> None:
    pytest.importorskip("onnx")
    report, wrong = benchmarks("chaos").chaos(seconds=12, every=3)
    assert wrong == []
    assert report["kills"] >= 2
    assert report["models_refused"] == 1
    assert report["lost_otherwise"] == 0
