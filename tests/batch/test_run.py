import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.batches import PICTURE
from support.commands import run
from support.pictures import seven

import inkdigits
from inkdigits.batch import sources
from inkdigits.batch.engines import Engine, LocalEngine
from inkdigits.batch.run import read_in_bulk
from inkdigits.batch.shards import NUMBER_SCHEMA, SCHEMA
from inkdigits.batch.sources import SHARD_PICTURES, Source
from inkdigits.errors import BackendUnavailableError, ConfigError

SHARDS = 8
# Stops after two shards, and lets Ctrl-C through even where the tests' own process ignores it.
HALF_A_RUN = """
import signal, time
from inkdigits.batch.engines import Engine
from inkdigits.cli.main import main

def slow(*given, read=Engine.read_parts):
    for number, counts in enumerate(read(*given)):
        yield counts
        if number:
            time.sleep(600)

Engine.read_parts = slow
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    """Pictures for some shards: mostly blank ones, which are soon read."""
    values = np.zeros((SHARD_PICTURES * SHARDS - 100, 28, 28), np.uint8)
    ink = inkdigits.preprocess(PICTURE)
    for i in range(0, len(values), 16):
        values[i] = np.roll(ink, i % 5)
    path = tmp_path_factory.mktemp("array") / "digits.npy"
    np.save(path, values)
    return path


@pytest.fixture(scope="module")
def whole(array, tmp_path_factory):
    """The result of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "out.csv"
    assert "3,996 pictures" in run("predict", array, "--out", out, "--workers", 2).stdout
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.csv", "out.csv.json"]
    return out.read_text()


def test_rows_are_what_the_reader_says_in_the_order_of_the_source(array, whole):
    rows = list(csv.DictReader(io.StringIO(whole)))
    assert [row["source"] for row in rows] == [f"{array}#{i}" for i in range(3996)]
    chosen = [0, 1, 16, 2048, 3984]
    reader = inkdigits.load()
    expected = reader.predict_batch(list(np.load(array)[chosen]))
    for row, said in zip((rows[i] for i in chosen), expected, strict=True):
        assert row["digit"] == ("" if said.answer is None else str(said.answer))
        assert row["closest"] == ("" if said.digit is None else str(said.digit))
        assert float(row["confidence"]) == pytest.approx(said.confidence, abs=1e-5)
        assert row["decision"] == said.decision
    assert rows[1]["reason"] == "blank"
    assert {(row["model_version"], row["error"]) for row in rows} == {(reader.model_version, "")}


@pytest.mark.parametrize(("end", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
@pytest.mark.e2e
def test_run_that_was_ended_in_the_middle_resumes_and_gives_the_same_file(
    end, code, array, whole, tmp_path, monkeypatch
):
    out = tmp_path / "out.csv"
    command = [sys.executable, "-c", HALF_A_RUN, "predict", array, "--out", out, "--workers", "2"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **streams, start_new_session=True)
    parts = tmp_path / "out.csv.parts"
    while len(list(parts.glob("*.part"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    if end == signal.SIGINT:
        os.killpg(process.pid, end)  # as a terminal does: the processes that read get it too
    else:
        process.send_signal(end)
    assert process.wait() == code
    said = process.stderr.read().decode()
    process.stderr.close()
    assert ("run the same command" in said, "Traceback" in said) == (end == signal.SIGINT, False)
    kept = {path.name for path in parts.glob("*.part")}
    assert 2 <= len(kept) < SHARDS
    assert not out.exists()
    assert "nothing to merge" in run("merge", out, exit_code=1).stderr

    read = []
    original = Engine.read_parts

    def watched(engine, job, tasks):
        return original(engine, job, (read.append(task[1]) or task for task in tasks))

    monkeypatch.setattr(Engine, "read_parts", watched)
    run("predict", array, "--out", out, "--workers", 2)
    assert out.read_text() == whole
    assert len({*read, *kept}) == len(read) + len(kept) == SHARDS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.json"]


def test_bad_pictures_are_rows_and_do_not_stop_the_others(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "1.png").write_bytes(PICTURE)
    (folder / "2\x1b[31m.png").write_bytes(PICTURE[:100])
    (folder / os.fsdecode(b"3\xff.png")).write_bytes(b"not a picture")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.writestr("../../outside.png", PICTURE)
        archive.writestr("huge.png", bytes(11 * 2**20))
    given = [folder, tmp_path / "more.zip", tmp_path / "missing.png"]
    out = tmp_path / "out.parquet"
    result = run("predict", *given, "--out", out, "--workers", 1, exit_code=1)
    assert "4 of 6 pictures cannot be read" in result.stderr
    assert "\x1b" not in result.stderr
    table = pq.read_table(out)
    assert tuple(table.column_names) == tuple(SCHEMA)
    types = "string int8 int8 double string string double string string"
    assert " ".join(str(field.type) for field in table.schema) == types
    expected = [
        ("pictures/1.png", 7, None),
        ("pictures/2\x1b[31m.png", None, "truncated or damaged"),
        ("pictures/3\\udcff.png", None, "not a picture"),
        ("more.zip#../../outside.png", 7, None),
        ("more.zip#huge.png", None, "11,534,336 bytes"),
        ("missing.png", None, "No such file"),
    ]
    for row, (source, digit, error) in zip(table.to_pylist(), expected, strict=True):
        assert (row["source"], row["digit"]) == (f"{tmp_path}/{source}", digit)
        assert row["error"] is None if error is None else error in row["error"]
    assert not list(tmp_path.parent.rglob("outside.png"))


def test_json_is_for_programs_and_more_failures_than_are_named_are_counted(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    out = tmp_path / "out.jsonl"
    result = run("predict", *[bad] * 12, "--out", out, "--workers", 1, "--json", exit_code=1)
    answer = json.loads(result.stdout)
    assert (answer["pictures"], answer["failed"], len(answer["failures"])) == (12, 12, 10)
    assert answer["model_version"] == inkdigits.load().model_version
    assert "and 2 more" in result.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [tuple(row) for row in rows] == [tuple(SCHEMA)] * 12
    assert (rows[0]["source"], rows[0]["digit"]) == (str(bad), None)


def test_run_that_cannot_start_says_why_and_leaves_nothing(array, tmp_path):
    out = tmp_path / "out.csv"
    arguments = (array, "--out", out, "--workers", 1, "--model", tmp_path / "no.onnx")
    said = run("predict", *arguments, exit_code=1).stderr
    assert said.startswith(f"Error: there is no artifact at {tmp_path / 'no.onnx'}. ")
    with pytest.raises(ConfigError, match="risk"):  # of a process that reads
        read_in_bulk([Source(array)], out, risk=2.0, engine=partial(LocalEngine, 1))
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_is_rejected_before_any_work(array, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match=r"\[export\]"):
        read_in_bulk([Source(array)], tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_what_an_earlier_run_did_and_what_changed_is_read_again(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sources, "SHARD_PICTURES", 10)
    np.save(tmp_path / "a.npy", np.zeros((80, 9, 7), np.uint8))
    seen = []

    def stop(run):
        seen.append((run.rows, run.read, run.expected))
        if len(seen) in (2, 3):
            raise KeyboardInterrupt

    for risk in (None, None, 0.1):  # The second resumes the first; the third reads otherwise.
        given = {"risk": risk, "engine": partial(LocalEngine, 1), "progress": stop}
        with suppress(KeyboardInterrupt):
            read_in_bulk([Source(tmp_path / "a.npy")], tmp_path / "out.csv", **given)
    assert seen[:4] == [(10, 10, 80), (20, 20, 80), (seen[2][0], 10, 80), (10, 10, 80)]
    assert 20 < seen[2][0] <= 50
    assert seen[-1] == (80, 80, 80)


def test_commands_that_share_a_run_are_merged_if_each_picture_was_read_once(array, whole, tmp_path):
    out = tmp_path / "out.csv"
    shared = ("predict", array, "--out", out, "--workers", 1, "--shard")
    run(*shared, "0/2")
    assert "lacks 4 of 8 parts, such as 00000001-" in run("merge", out, exit_code=1).stderr
    run(*shared, "1/2")
    run(*shared, "2/3")  # of another division, which was given up
    again = run(*shared, "1/2")  # as a scheduler does after a failure: it reads nothing again
    assert "1,948 pictures" in again.stdout
    one, other = sorted((tmp_path / "out.csv.parts").glob("*.part"))[2:4]
    sound = other.read_bytes()
    for wrong in (one.read_bytes(), sound[:1000]):
        other.write_bytes(wrong)
        assert "or belongs to other pictures" in run("merge", out, exit_code=1).stderr
        assert not out.exists()
    other.write_bytes(sound)
    assert "3,996 rows" in run("merge", out).stdout
    assert out.read_text() == whole
    manifest = json.loads((tmp_path / "out.csv.json").read_text())
    assert (manifest["model"], manifest["shards"]) == (inkdigits.load().model_version, SHARDS)
    assert (manifest["pictures"], manifest["failed"], manifest["sources"][0][0]) == (
        *(3996, 0),
        str(array),
    )


def test_folder_of_parquet_files_is_one_table_and_an_older_one_is_replaced(
    array, tmp_path, monkeypatch
):
    monkeypatch.setattr("inkdigits.batch.run._PARTS_PER_FILE", 3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00007.parquet").write_bytes(b"of an earlier run")
    write = ("predict", array, "--out", f"{tmp_path}/out/", "--workers", 1)
    assert "exists; add --overwrite" in run(*write, exit_code=1).stderr
    run(*write, "--overwrite")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"part-0000{i}.parquet" for i in range(3)]
    assert pq.read_table(tmp_path / "out")["source"].to_pylist() == [
        f"{array}#{i}" for i in range(3996)
    ]


def test_numbers_are_read_in_bulk_in_the_regions_of_a_csv_file(tmp_path):
    page = np.full((120, 230), 255, np.uint8)
    for left in (10, 120):
        page[10:110, left : left + 100] = np.asarray(seven(100, 8))
    paths = [tmp_path / name for name in ("a.png", "b.png", "bad.png")]
    for path in paths:
        Image.fromarray(page).save(path)
    paths[2].write_bytes(b"no picture")
    regions = tmp_path / "regions.csv"
    regions.write_text(
        "source,left,top,width,height\n"
        f"{paths[0]},0,0,115,120\n{paths[0]},0,0,230,120\n{paths[0]},0,0,999,120\n"
        f"{paths[2]},0,0,9,9\n"
    )
    out = tmp_path / "out.csv"
    given = ("read", *paths, "--out", out, "--workers", 1, "--overwrite")
    result = run(*given, "--regions", regions, "--length", "1-2", exit_code=1)
    assert "3 of 5 regions cannot be read" in result.stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert tuple(rows[0]) == tuple(NUMBER_SCHEMA)
    assert [row["source"] for row in rows] == [str(paths[i]) for i in (0, 0, 0, 1, 2)]
    assert [row["text"] for row in rows] == ["7", "77", "", "", ""]
    assert rows[1]["region"] == "0 0 230 120"
    for row, said in zip(rows[2:], ("not inside", "no region", "not a picture"), strict=True):
        assert said in row["error"]
    for _ in range(2):
        assert "3 pictures" in run(*given, "--length", "1-2", "--shard", "0/1").stdout
    run("merge", out)
    assert [row["text"] for row in csv.DictReader(out.read_text().splitlines())] == ["77", "77", ""]
    regions.write_text("left,top\n1,2\n")
    assert "must have the columns left" in run(*given, "--regions", regions, exit_code=1).stderr
