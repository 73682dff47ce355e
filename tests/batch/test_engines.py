import multiprocessing
import os
import signal
from contextlib import closing
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from support.batches import PICTURE
from support.deadly import DeadlyPicture

import inkdigits
from inkdigits.batch.engines import Job, LocalEngine
from inkdigits.batch.shards import Shard
from inkdigits.errors import BatchError

BLANK = np.zeros((28, 28), np.uint8)


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path, inkdigits.load().model_version)


def rows(job, name):
    return msgspec.msgpack.decode((job.folder / name).read_bytes())


@pytest.mark.e2e
def test_picture_that_ends_a_worker_is_an_error_in_its_row(job):
    deadly = Shard(list("abc"), [PICTURE, DeadlyPicture(), PICTURE])
    others = [(Shard([name], [PICTURE]), name) for name in "defgh"]
    with closing(LocalEngine(2)) as engine:
        done = list(engine.read_parts(job, iter([others[0], (deadly, "deadly"), *others[1:]])))
    assert sorted(done) == [*[(1, 0)] * 5, (3, 1)]
    assert rows(job, "deadly")["digit"] == [7, None, 7]
    assert "the worker that read it ended" in rows(job, "deadly")["error"][1]
    assert [rows(job, name)["digit"] for name in "defgh"] == [[7]] * 5


def test_worker_that_was_ended_from_outside_costs_no_picture(job):
    names = [str(i) for i in range(20)]
    tasks = ((Shard([name], [BLANK]), name) for name in names)
    with closing(LocalEngine(1)) as engine:
        for number, _ in enumerate(engine.read_parts(job, tasks)):
            if number == 2:
                (process,) = multiprocessing.active_children()
                os.kill(process.pid, signal.SIGKILL)
    assert [rows(job, name)["reason"] for name in names] == [["blank"]] * 20


def test_model_that_is_replaced_during_a_run_ends_it(job):
    with closing(LocalEngine(1)) as engine, pytest.raises(BatchError, match="was replaced during"):
        list(engine.read_parts(replace(job, model_version="another"), iter([])))
