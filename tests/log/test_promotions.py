"""Replicas decide once about a promotion, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.databases import opened

from inkdigits.log.store import Store

pytest_plugins = ["support.databases"]


def test_who_decides_first_decides(store: Store, database_url: str, tmp_path: Path) -> None:
    assert store.promotions.reason("v@1") is None
    with opened(database_url, tmp_path / "other") as other:
        stores = [store, other] * 4
        with ThreadPoolExecutor() as pool:
            reasons = set(pool.map(lambda n: stores[n].promotions.end("v@1", f"r{n}"), range(8)))
        (reason,) = reasons
        assert other.promotions.reason("v@1") == reason
    assert store.promotions.end("v@2", "x" * 500) == "x" * 400
    assert store.available
