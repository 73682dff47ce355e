"""The real web service loses its database, then its life: what it answered is in the log."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from support.databases import Outage, rows_of, wait_until
from support.fakes import drawn_digit
from support.running import Service

from inkdigits.model.artifact import shipped_artifact

pytest_plugins = ["support.databases"]
pytestmark = pytest.mark.skipif(not shipped_artifact().is_file(), reason="needs the shipped model")


def predict(service: Service, n: int) -> list[str]:
    """The ids of n predictions that were answered and kept."""
    ids = []
    for _ in range(n):
        request = urllib.request.Request(
            service.url + "/predict", data=drawn_digit(), headers={"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert answer["kept"] in {"database", "outbox"}
        ids.append(answer["id"])
    return ids


def log_of(service: Service) -> str:
    """Where predictions go now, by what the service says of its readiness."""
    with urllib.request.urlopen(service.url + "/health/ready", timeout=60) as response:
        word: str = json.load(response)["log"]
    return word


def test_web_service_killed_while_its_database_is_down_loses_no_prediction(
    outage: Outage, tmp_path: Path
) -> None:
    web = Service(tmp_path / "data", "/health/ready", DATABASE_URL=outage.url)
    try:
        answered = predict(web, 3)
        wait_until(lambda: len(rows_of(outage.url)) == 3)
        outage.begin()
        answered += predict(web, 5)
        wait_until(lambda: log_of(web) == "outbox")
        web.kill()
        web.start()  # the database is still away
        answered += predict(web, 2)
        web.kill()
        outage.end()
        web.start()
        answered += predict(web, 1)
        wait_until(lambda: log_of(web) == "database")
        wait_until(lambda: len(rows_of(outage.url)) >= len(answered))
        assert sorted(rows_of(outage.url)) == sorted(answered)
    finally:
        web.stop()
