"""Three replicas behind nginx, with one PostgreSQL and one Redis, behave as one service."""

import contextlib
import os
import re
import shutil
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from support.artifacts import variant
from support.browser import TOKEN
from support.databases import connected, rows_of
from support.fakes import drawn_digit
from support.nginx import nginx_before
from support.processes import wait_until
from support.redis import running_redis
from support.scrape import fetch, value
from support.server import REAL, Service, Site

from inkdigits.log.connections import connect
from inkdigits.log.schema import NEWEST, migrate
from inkdigits.serving.api.access import SIGN_INS_PER_MINUTE

pytest_plugins = ["support.databases"]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="Gunicorn needs POSIX")

RATE = 240
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


class Replicas:
    """Three services of one model each, and the nginx before them."""

    def __init__(self, url, port, each, paths, are_early):
        self.url, self.port, self.each, self.paths = url, port, each, paths
        self.are_early = are_early  # whether one was ready while another process migrated

    def seen_from(self, address):
        """What a client at an address of this machine sees of them."""
        return Site(self.port, address=address)

    def versions(self):
        return [one.ask()[1]["model_version"] for one in self.each]

    @contextlib.contextmanager
    def under_load(self):
        """Have four clients ask without a pause; yields the answers, none of which may fail."""
        answers, is_over = [], threading.Event()

        def ask(client):
            site = self.seen_from(f"127.0.0.{client}")
            while not is_over.wait(0.3):
                answers.append(site.predict())

        with ThreadPoolExecutor() as pool:
            asking = [pool.submit(ask, client) for client in range(10, 14)]
            try:
                wait_until(lambda: len(answers) >= 8)
                yield answers
                enough = len(answers) + 8
                wait_until(lambda: len(answers) >= enough)
            finally:
                is_over.set()
        assert [one.result() for one in asking] == [None] * 4
        assert {status for status, _ in answers} == {200}, answers


@pytest.fixture(scope="module")
def replicas(shared_postgres, tmp_path_factory):
    folder, url = tmp_path_factory.mktemp("replicas"), shared_postgres.empty_database()
    paths = [folder / str(k) / "model.onnx" for k in range(3)]
    variant(paths[0], "first")
    for path in paths[1:]:
        shutil.copytree(paths[0].parent, path.parent)
    with contextlib.ExitStack() as stack:
        shared = {
            "DATABASE_URL": url,
            "INKDIGITS_SECRET_KEY": "k" * 32,
            "INKDIGITS_ADMIN_TOKEN": TOKEN,
            "INKDIGITS_RATE_LIMIT": str(RATE),
            "INKDIGITS_RATE_LIMIT_URL": stack.enter_context(running_redis()).url
            + "?socket_timeout=60",
            "INKDIGITS_TRUSTED_PROXIES": "127.0.0.1",
        }

        def start(path):
            own = {"MODEL_PATH": str(path), "INKDIGITS_DATA_DIR": str(path.parent)}
            return Service(program=REAL, **shared, **own)

        pool = stack.enter_context(ThreadPoolExecutor())
        engine = connect(url)
        migrate(engine, "0002")
        engine.dispose()
        with connected(url) as migration:
            key = int.from_bytes(b"inkdigit", "big")
            migration.execute(sa.text(f"SELECT pg_advisory_xact_lock({key})"))
            starting = [pool.submit(start, path) for path in paths]
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_until(lambda: migration.scalar(sa.text(waiting)) == 3)
            are_early = any(one.done() for one in starting)
        stack.callback(lambda: list(pool.map(lambda one: one.result().stop(), starting)))
        each = [one.result() for one in starting]
        first, *others = (f"server 127.0.0.1:{one.port};" for one in each)
        changes = {first: "\n".join([first, *others])}
        port = stack.enter_context(nginx_before(each[0].port, folder / "nginx", changes))
        yield Replicas(url, port, each, paths, are_early)


def opened(site):
    """Open the page: the headers of a browser that has it open."""
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", "/", headers={"Accept": "text/html"})
        response = connection.getresponse()
        token = re.search(r'name="csrf-token" content="([^"]+)"', response.read().decode())
        assert token is not None
        return {
            "Cookie": response.headers["Set-Cookie"].partition(";")[0],
            "X-CSRF-Token": token[1],
        }


def seen(site, path, headers):
    """Ask for a page: its status, its text and the cookie that it sets."""
    with contextlib.closing(site.connect()) as connection:
        connection.request("GET", path, headers={"Accept": "text/html", **headers})
        response = connection.getresponse()
        return response.status, response.read().decode()


def post(site, path, headers, body=""):
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    with contextlib.closing(site.connect()) as connection:
        connection.request("POST", path, body=body, headers={**kind, **headers})
        response = connection.getresponse()
        response.read()
        return response.status, (response.headers["Set-Cookie"] or "").partition(";")[0]


def test_replicas_are_not_ready_while_the_log_is_migrated(replicas):
    assert not replicas.are_early
    assert rows_of(replicas.url, "version_num", "alembic_version") == [NEWEST]


def test_limits_hold_across_replicas(replicas):
    client = replicas.seen_from("127.0.0.20")
    with ThreadPoolExecutor(4) as pool:
        statuses = Counter(pool.map(lambda _: client.ask(path="/api")[0], range(RATE + 20)))
    assert statuses == {200: RATE, 429: 20}
    assert replicas.seen_from("127.0.0.21").ask(path="/api")[0] == 200
    assert replicas.each[0].ask(path="/health/ready")[1]["rates"] == "redis"
    guesser = replicas.seen_from("127.0.0.22")
    browser = opened(guesser)
    guesses = [post(guesser, "/sign-in", browser, "token=guess")[0] for _ in range(16)]
    assert Counter(guesses) == {403: SIGN_INS_PER_MINUTE, 429: 16 - SIGN_INS_PER_MINUTE}


def test_session_feedback_and_sign_out_are_known_to_all(replicas):
    one, other, third = replicas.each
    browser = opened(one)
    png = {**browser, "Content-Type": "image/png"}
    status, drawn = other.ask("POST", "/history", body=drawn_digit(), headers=png)
    assert (status, drawn["kept"]) == (200, "database")
    labelled = post(third, f"/history/{drawn['id']}/feedback", browser, "label=3")
    assert labelled[0] == 200
    assert rows_of(replicas.url, "label", f"predictions WHERE id = '{drawn['id']}'") == ["3"]
    guest = opened(other)
    assert drawn["id"] not in seen(third, "/history", guest)[1]
    status, cookie = post(other, "/sign-in", guest, f"token={TOKEN}")
    operator = {**guest, "Cookie": cookie}
    assert (status, drawn["id"] in seen(third, "/history", operator)[1]) == (303, True)
    assert post(one, "/sign-out", operator)[0] == 303
    assert drawn["id"] not in seen(third, "/history", operator)[1]


def test_rolling_change_of_the_model_under_load_fails_no_request(replicas):
    both = ("first", "second")
    with replicas.under_load() as answers:
        for n, (path, one) in enumerate(zip(replicas.paths, replicas.each, strict=True), 1):
            variant(path, "second")
            one.process.send_signal(signal.SIGHUP)
            wait_until(lambda n=n: replicas.versions() == ["second"] * n + ["first"] * (3 - n))
            if n == 1:
                answers.clear()
                wait_until(lambda: {a["model_version"] for _, a in answers} == set(both))
                metrics = [fetch(replica) for replica in replicas.each]
                package = replicas.each[0].ask()[1]["version"]
                shown = {"name": "inkdigits_model_info", "version": package}
                found = [[value(m, model_version=v, **shown) for v in both] for m in metrics]
                assert found == [[0, 1], [1, 0], [1, 0]]
    status, dashboard = seen(replicas.seen_from("127.0.0.1"), "/dashboard", OPERATOR)
    assert status == 200
    assert set(both) <= set(re.findall(r'<th scope="row">([^<]+)', dashboard))


def test_killed_replica_loses_nothing_that_was_acknowledged(replicas):
    victim = replicas.each[0]
    with replicas.under_load() as answers:
        victim.kill()
        enough = len(answers) + 12
        wait_until(lambda: len(answers) >= enough)
    victim.start()  # what waits in its outbox goes to the database
    assert {answer["kept"] for _, answer in answers} <= {"database", "outbox"}
    acknowledged = {answer["id"] for _, answer in answers}
    wait_until(lambda: acknowledged <= set(rows_of(replicas.url)))
    assert set(Counter(rows_of(replicas.url)).values()) == {1}
