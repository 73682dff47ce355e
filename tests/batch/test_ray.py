"""A cluster of three nodes on this machine: the driver is ended and resumed, and a node killed."""

import os
import threading
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.batches import PICTURE, tarred, zipped
from support.deadly import DeadlyPicture
from support.repository import REPOSITORY, TESTS

import inkdigits
from inkdigits.batch.engines import Job, LocalEngine, RayEngine
from inkdigits.batch.run import read_in_bulk
from inkdigits.batch.shards import Shard
from inkdigits.batch.sources import Source

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def cluster(monkeypatch):
    from ray.cluster_utils import Cluster

    path = os.pathsep.join([str(REPOSITORY / "src"), str(TESTS), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield started
    started.shutdown()


def test_node_that_is_killed_costs_no_picture_and_the_table_is_the_same(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr("inkdigits.batch.sources.SHARD_PICTURES", 20)
    members = {f"{i}.png": PICTURE for i in range(200)}
    paths = [tarred(tmp_path / "a.tar", members), zipped(tmp_path / "b.zip", members)]
    paths.append(tmp_path / "c.parquet")
    pq.write_table(pa.table({"image": [PICTURE] * 200}), paths[2])
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    seen = []

    def kill_one(progress):
        seen.append(progress.rows)
        if len(seen) == 4:
            raise KeyboardInterrupt
        if len(seen) == 8:
            threading.Thread(target=cluster.remove_node, args=(nodes[0], False)).start()

    out, sources = tmp_path / "ray.csv", [Source(path) for path in paths]
    start = partial(RayEngine, cluster.address)
    with pytest.raises(KeyboardInterrupt):
        read_in_bulk(sources, out, engine=start, progress=kill_one)
    there = read_in_bulk(sources, out, engine=start, progress=kill_one)
    here = read_in_bulk(sources, tmp_path / "local.csv", engine=partial(LocalEngine, 1))
    assert (there.rows, there.failed) == (here.rows, here.failed) == (600, 0)
    assert out.read_bytes() == (tmp_path / "local.csv").read_bytes()
    assert len(seen) <= 30 + 4


def test_picture_that_ends_a_worker_of_a_cluster_is_an_error_in_its_row(cluster, tmp_path):
    deadly = Shard(list("abc"), [PICTURE, DeadlyPicture(), PICTURE])
    tasks = [(deadly, "a"), (Shard(["d"], [PICTURE]), "b")]
    engine = RayEngine(cluster.address)
    try:
        done = list(engine.read_parts(Job(tmp_path, inkdigits.load().model_version), iter(tasks)))
    finally:
        engine.close()
    assert sorted(done) == [(1, 0), (3, 1)]
