"""The real web service loses its database, then its life: what it answered is in the log."""

import pytest
from support.databases import rows_of
from support.processes import wait_until
from support.server import REAL, running

from inkdigits.model.artifact import shipped_artifact

pytest_plugins = ["support.databases"]
pytestmark = pytest.mark.skipif(not shipped_artifact().is_file(), reason="needs the shipped model")


def predict(service, n):
    """The ids of n predictions that were answered and kept."""
    answers = [service.predict()[1] for _ in range(n)]
    assert {answer["kept"] for answer in answers} <= {"database", "outbox"}
    return [answer["id"] for answer in answers]


def is_logged_in(service, place):
    """Whether predictions go there now, by what the service says of its readiness."""
    return bool(service.ask(path="/health/ready")[1]["log"] == place)


def test_web_service_killed_while_its_database_is_down_loses_no_prediction(outage, tmp_path):
    settings = {"DATABASE_URL": outage.url, "INKDIGITS_DATA_DIR": str(tmp_path / "data")}
    with running(program=REAL, **settings) as web:
        answered = predict(web, 3)
        wait_until(lambda: len(rows_of(outage.url)) == 3)
        outage.begin()
        answered += predict(web, 5)
        wait_until(lambda: is_logged_in(web, "outbox"))
        web.kill()
        web.start()  # the database is still away
        answered += predict(web, 2)
        web.kill()
        outage.end()
        web.start()
        answered += predict(web, 1)
        wait_until(lambda: is_logged_in(web, "database"))
        wait_until(lambda: len(rows_of(outage.url)) >= len(answered))
        assert sorted(rows_of(outage.url)) == sorted(answered)
