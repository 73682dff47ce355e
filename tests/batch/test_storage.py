"""Sources and results in an object store: moto's server, which answers as S3 does."""

import csv
import io
from contextlib import suppress

import numpy as np
import pytest
import urllib3
from support.batches import PICTURE, everything, zipped
from support.commands import run
from support.server import free_port

from inkdigits.batch.storage import as_path, open_new
from inkdigits.errors import BackendUnavailableError


def test_file_url_is_a_path_and_an_unknown_kind_says_what_is_allowed():
    assert str(as_path("file:///data/a.png")) == "/data/a.png"
    with pytest.raises(BackendUnavailableError, match="cloud"):
        as_path("nonsense://bucket/a.png")


@pytest.fixture
def bucket(monkeypatch):
    server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("upath")
    port = free_port()
    service = server.ThreadedMotoServer("127.0.0.1", port, verbose=False)
    service.start()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    urllib3.request("POST", f"http://127.0.0.1:{port}/moto-api/reset")
    store = s3fs.S3FileSystem()
    store.mkdir("digits")
    yield store
    s3fs.S3FileSystem.clear_instance_cache()
    service.stop()


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_objects_are_read_and_the_table_is_one_too(bucket, tmp_path, monkeypatch):
    for i in range(3):
        bucket.pipe(f"digits/in/{i}.png", PICTURE)
    bucket.put(str(zipped(tmp_path / "a.zip", {"7.png": PICTURE}, compression=8)), "digits/a.zip")
    np.save(tmp_path / "a.npy", np.zeros((4, 9, 7), np.uint8))
    bucket.put(str(tmp_path / "a.npy"), "digits/a.npy")
    sources = [f"s3://digits/{name}" for name in ("in", "a.zip", "a.npy", "none.png")]
    out = "s3://digits/out.csv"
    assert "1 of 9" in run("predict", *sources, "--out", out, "--workers", 1, exit_code=1).stderr
    rows = list(csv.DictReader(io.StringIO(bucket.cat("digits/out.csv").decode())))
    assert [row["digit"] for row in rows] == ["7"] * 4 + [""] * 5
    assert rows[3]["source"] == "s3://digits/a.zip#7.png"
    assert "there is no s3://digits/none.png" in rows[8]["error"]
    assert sorted(bucket.ls("digits", refresh=True)) == sorted(
        f"digits/{name}" for name in ("a.npy", "a.zip", "in", "out.csv", "out.csv.json")
    )
    nowhere = ("predict", sources[0], "--out", "s3://nowhere/out.csv", "--workers", 1)
    assert "bucket does not exist" in run(*nowhere, exit_code=1).stderr
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    type(bucket).clear_instance_cache()
    failed = run("predict", sources[0], "--out", tmp_path / "a.csv", exit_code=1)
    assert "Unable to locate credentials. Check the network and the credentials" in failed.stderr


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_many_objects_are_listed_and_a_large_one_is_sent_in_parts_or_not_at_all(bucket):
    bucket.pipe({f"digits/in/{i}.png": b"x" for i in range(1200)})  # a listing has 1,000 a page
    bucket.invalidate_cache()
    found = everything(as_path("s3://digits/in"))
    assert [name for name, _ in found] == sorted(f"s3://digits/in/{i}.png" for i in range(1200))
    large = as_path("s3://digits/large")
    with open_new(large) as file:
        for _ in range(18):
            file.write(bytes(2**20))
    assert bucket.info("digits/large")["ETag"].endswith('-3"')  # of three parts
    with suppress(ZeroDivisionError), open_new(as_path("s3://digits/cut off")) as file:
        file.write(bytes(9 * 2**20))
        file.write(bytes(1 // 0))
    assert not bucket.exists("digits/cut off")
