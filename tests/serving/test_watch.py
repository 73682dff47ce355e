"""One process watches, another takes over, and errors end nothing."""

import logging

from support.processes import wait_until

from inkdigits.errors import StoreUnavailableError
from inkdigits.log.locks import file_lock
from inkdigits.serving.watch import Watcher


def test_one_watcher_works_and_another_takes_over_when_it_ends(tmp_path):
    done = []
    lock = tmp_path / "lock"
    watchers = [Watcher([lambda n=n: done.append(n)], 0.01, lock) for n in range(2)]
    with file_lock(tmp_path / "lock"):
        for watcher in watchers:
            watcher.start()
    wait_until(lambda: len(done) > 5)
    (first,) = set(done)
    watchers[first].stop()
    wait_until(lambda: len(set(done)) == 2)
    watchers[1 - first].stop()


def test_a_lock_that_cannot_be_made_is_tried_again(tmp_path):
    done = []
    watcher = Watcher([lambda: done.append(1)], 0.01, tmp_path / "later" / "lock")
    watcher.start()
    wait_until(lambda: watcher._problems)
    (tmp_path / "later").mkdir()
    wait_until(lambda: done)
    watcher.stop()


def test_a_job_that_fails_is_done_again_and_logged_once(caplog):
    problems = ["gone", "gone", None, "gone"]
    done = []

    def job():
        problem = problems[len(done)]
        done.append(problem)
        if problem:
            raise StoreUnavailableError(problem)

    watcher = Watcher([job, lambda: done.append("other")], 0.01)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            watcher.look()
    assert done == ["gone", "other", None, "other"]
    assert caplog.text.count("cannot be seen") == 1
