"""Every operation of the log fails once, for good, or ends its process: what is left each time.

As SQLite tests itself ("How SQLite Is Tested", section 3): the N-th operation fails, for N = 1, 2,
3 … until the scenario ends without a fault. What was acknowledged must be there, once.
"""

import multiprocessing
import os
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from functools import wraps
from itertools import count
from typing import Literal, TypeAlias

import pytest
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from support.databases import a_record, rows_of

from inkdigits.errors import InkdigitsError, StoreError
from inkdigits.log.connections import Options
from inkdigits.log.store import Store

pytest_plugins = ["support.databases"]
pytestmark = pytest.mark.slow

Fault: TypeAlias = Literal["once", "for good", "killed before", "killed after"]

ENOUGH = Options(wait_s=20)
OPERATIONS = ("connect", "do_execute", "do_executemany", "do_commit", "do_rollback")


class Faults:
    """Makes the N-th operation of this process fail: connect, execute, commit, fsync, rename."""

    def __init__(self, fault, number):
        self._fault = fault
        self._number = number
        self._counting = threading.Lock()
        self._count = 0
        self.happened = False
        self.is_over = False

    def install(self):
        for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
            for name in OPERATIONS:
                self._wrap(dialect, name, lambda dialect: dialect.loaded_dbapi.OperationalError)
        for name in ("fsync", "rename", "replace", "open"):
            self._wrap(os, name, lambda _: OSError)

    def _wrap(self, owner, name, error_of):
        original = getattr(owner, name)

        @wraps(original)
        def wrapped(*arguments, **more):
            with self._counting:
                self._count += 1
                is_it = self._count == self._number
                fails = is_it or (self._fault == "for good" and self._count > self._number)
                fails = fails and not self.is_over
                self.happened |= fails
            if fails and self._fault == "killed before":
                os._exit(9)
            if fails and self._fault in ("once", "for good"):
                raise error_of(arguments[0])(f"fault {self._number}: {name}")
            result = original(*arguments, **more)
            if fails:
                os._exit(9)
            return result

        setattr(owner, name, wrapped)


def end_with_traceback(hook):
    traceback.print_exception(hook.exc_value)
    os._exit(77)


def scenario(url, folder, fault, number):
    """Keep, correct and delete; write down what is begun and what is acknowledged."""
    threading.excepthook = end_with_traceback
    journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(*words):
        os.write(journal, (" ".join(map(str, words)) + "\n").encode())

    def attempt(what, name, do):
        tell("begun", what, name)
        try:
            do()
        except StoreError:
            return
        tell("done", what, name)

    faults = Faults(fault, number)
    records = [a_record(n) for n in range(6)]
    faults.install()
    try:
        store = Store(url, outbox_dir=folder / "outbox", options=ENOUGH)
    except InkdigitsError:
        os._exit(1 if faults.happened else 78)
    for record in records[:3]:
        tell("kept", store.keep(record), record.id)
    store._database.fail("the outbox's turn")
    store._writer._retry_at = time.monotonic() + 1000
    for record in records[3:]:
        tell("kept", store.keep(record), record.id)
    attempt("feedback", records[3].id, lambda: store.give_feedback(records[3].id, "7", "page"))
    attempt("flush", "-", store.flush_outbox)
    store._writer._retry_at = 0.0
    attempt("feedback", records[0].id, lambda: store.give_feedback(records[0].id, "7", "page"))
    attempt("delete", records[1].id, lambda: store.delete(records[1].id))
    attempt("delete", records[4].id, lambda: store.delete(records[4].id))
    happened = faults.happened
    faults.is_over = True
    store.close()
    os._exit(1 if happened else 0)


def check(url, folder):
    """Read the journal and compare it with what the log holds now; returns where rows were kept."""
    lines = [line.split() for line in (folder / "journal").read_text().splitlines()]
    kept = {name: where for word, where, name in lines if word == "kept"}
    begun = {(what, name) for word, what, name in lines if word == "begun"}
    done = {(what, name) for word, what, name in lines if word == "done"}
    with Store(url, outbox_dir=folder / "outbox", options=ENOUGH) as store:
        store.flush_outbox()
        assert store.waiting() == 0
    rows = dict(rows_of(url, "id, label"))
    assert len(rows) == len(rows_of(url))
    for name, where in kept.items():
        if ("delete", name) in done:
            assert name not in rows
        elif where != "lost" and ("delete", name) not in begun:
            assert name in rows, f"{name} was kept in {where}"
            if ("feedback", name) in done:
                assert rows[name] == "7"
            elif ("feedback", name) not in begun:
                assert rows[name] is None
    return Counter(kept.values())


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", ["once", "for good", "killed before", "killed after"])
def test_whatever_fails_nothing_acknowledged_is_missing_or_there_twice(
    empty_database, tmp_path, fault
):
    fork = multiprocessing.get_context("fork")
    total: Counter[str] = Counter()
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        url = empty_database(folder)
        process = fork.Process(target=scenario, args=(url, folder, fault, number))
        with warnings.catch_warnings():
            # Python 3.12 warns of forks among threads; these children start their own.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        process.join()
        assert process.exitcode in {0, 1, 9}, f"operation {number}"
        total += check(url, folder)
        if process.exitcode == 0:
            break
    assert number > 50
    assert total["database"] > number
    assert total["outbox"] > number
    sys.stdout.write(f"{fault}: {number - 1} faults, {dict(total)}, none missing, none twice\n")
