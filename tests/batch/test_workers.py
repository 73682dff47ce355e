import json
import os
import signal

import numpy as np
from support.batches import PICTURE
from support.deadly import DeadlyShard
from support.fakes import FakeReader

import inkdigits
from inkdigits.batch.sources import open_sources
from inkdigits.batch.workers import Task, WorkerPool, WorkerSettings, read_shard
from inkdigits.errors import ImageError


def test_picture_that_ends_a_worker_is_an_error_in_its_row(tmp_path):
    settings = WorkerSettings(tmp_path, None, inkdigits.Limits())
    with WorkerPool(1, settings) as pool:
        (done,) = pool.read(iter([Task(0, DeadlyShard(PICTURE))]))
    assert (done.pictures, done.failed) == (3, 1)
    text = (tmp_path / "00000000.json").read_bytes().partition(b"\n")[2]
    columns = json.loads(text)["columns"]
    assert columns["digit"] == [7, None, 7]
    assert columns["error"][1] == "the worker that read it was ended by signal 9"
    assert columns["error"][0] is None


def test_ctrl_c_that_reaches_the_workers_too_is_left_to_the_parent(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((20, 28, 28), np.uint8))
    (source,) = open_sources([tmp_path / "a.npy"])
    with WorkerPool(1, WorkerSettings(tmp_path, None, inkdigits.Limits())) as pool:
        (worker,) = pool._workers
        os.kill(worker.process.pid, signal.SIGINT)
        (done,) = pool.read(iter([Task(0, next(source.shards()))]))
        assert done.pictures == 20
        assert pool._workers == [worker]


def test_batches_are_bounded_in_bytes_and_errors_keep_their_place(monkeypatch, tmp_path):
    monkeypatch.setattr("inkdigits.batch.workers.BATCH_BYTES", 2 * len(PICTURE))
    sizes = []

    class Watching(FakeReader):
        def predict_batch(self, pictures, *, on_error="raise"):
            sizes.append(len(pictures))
            return super().predict_batch(pictures, on_error=on_error)

    class Shard:
        def names(self):
            return list("abcdef")

        def pictures(self):
            yield from [PICTURE] * 3
            yield ImageError("no")
            yield from [PICTURE] * 2

    columns = read_shard(Watching(), Task(0, Shard()))
    assert sizes == [2, 1, 2]
    assert columns["error"] == [None, None, None, "no", None, None]
    assert columns["digit"] == [7, 7, 7, None, 7, 7]
