import csv
import multiprocessing
import os
import signal
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from support.batches import PICTURE
from support.deadly import DeadlyPicture

from inkdigits.batch.engines import Job, LocalEngine, Workers
from inkdigits.batch.shards import Shard
from inkdigits.errors import BatchError

BLANK = np.zeros((28, 28), np.uint8)


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path, "csv", None)


def rows(job, number):
    text = (job.folder / f"{number:08}.part").read_text().split("\n", 2)[2]
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.e2e
def test_picture_that_ends_a_worker_is_an_error_in_its_row(job):
    deadly = Shard(list("abc"), [PICTURE, DeadlyPicture(), PICTURE])
    others = [Shard([name], [PICTURE]) for name in "defgh"]
    with closing(LocalEngine(2)) as engine:
        pool = Workers(engine, job)
        done = list(pool.read(enumerate([others[0], deadly, *others[1:]])))
    assert sorted((one.number, one.pictures, one.failed) for one in done) == [
        (number, 3 if number == 1 else 1, number == 1) for number in range(6)
    ]
    assert [row["digit"] for row in rows(job, 1)] == ["7", "", "7"]
    assert "the worker that read it ended" in rows(job, 1)[1]["error"]
    assert [rows(job, number)[0]["digit"] for number in (0, 2, 3, 4, 5)] == ["7"] * 5


def test_worker_that_was_ended_from_outside_costs_no_picture(job):
    shards = (Shard([str(i)], [BLANK]) for i in range(20))
    with closing(LocalEngine(1)) as engine:
        pool = Workers(engine, job)
        done = []
        for one in pool.read(enumerate(shards)):
            done.append(one.number)
            if len(done) == 3:
                (process,) = multiprocessing.active_children()
                os.kill(process.pid, signal.SIGKILL)
    assert sorted(done) == list(range(20))
    assert {row["reason"] for number in range(20) for row in rows(job, number)} == {"blank"}


def test_model_that_is_replaced_during_a_run_ends_it(job):
    with closing(LocalEngine(1)) as engine:
        pool = Workers(engine, job)
        pool.job = replace(job, model_version="another")
        with pytest.raises(BatchError, match="was replaced during the run: another, then"):
            list(pool.read(iter([(0, Shard(["a"], [BLANK]))])))
