import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.deadly import DeadlyChunk
from support.fakes import FakeReader
from support.pictures import encoded, seven

import inkdigits
from inkdigits.batch import run as bulk
from inkdigits.batch import sources
from inkdigits.batch import writers as results
from inkdigits.batch.checkpoint import ChunkDone, Unfinished, write_part
from inkdigits.batch.run import Progress, predict_to_file
from inkdigits.batch.sources import CHUNK_PICTURES, open_sources
from inkdigits.batch.workers import Pool, Task, Work, read_chunk
from inkdigits.batch.writers import COLUMNS
from inkdigits.cli.main import main
from inkdigits.cli.progress import ProgressLine, as_line, printable
from inkdigits.errors import BackendUnavailableError, BatchError, ImageError

PICTURE = encoded(seven(40, 4))
CHUNKS = 8


def run(*arguments, exit_code=0):
    result = CliRunner().invoke(main, ["predict", *(str(a) for a in arguments)])
    assert result.exit_code == exit_code, result.output
    return result


def part(*names, error=None):
    columns = {name: [None] * len(names) for name in COLUMNS}
    return columns | {"source": list(names), "error": [error] * len(names)}


@pytest.fixture(scope="module")
def array(tmp_path_factory) -> Path:
    """Pictures for some chunks: mostly blank ones, which are soon read."""
    values = np.zeros((CHUNK_PICTURES * CHUNKS - 100, 28, 28), np.uint8)
    ink = inkdigits.preprocess(PICTURE)
    for i in range(0, len(values), 16):
        values[i] = np.roll(ink, i % 5)
    path = tmp_path_factory.mktemp("array") / "digits.npy"
    np.save(path, values)
    return path


@pytest.fixture(scope="module")
def whole(array, tmp_path_factory) -> str:
    """The result of an uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "out.csv"
    assert "3,996 pictures" in run(array, "--out", out, "--workers", 2).stdout
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.csv"]
    return out.read_text()


def test_rows_are_what_the_reader_says_in_the_order_of_the_source(array, whole):
    rows = list(csv.DictReader(io.StringIO(whole)))
    assert [row["source"] for row in rows] == [f"{array}#{i}" for i in range(3996)]
    chosen = [0, 1, 16, 2048, 3984]
    reader = inkdigits.load()
    expected = reader.predict_batch(list(np.load(array)[chosen]))
    assert [row["digit"] for row in (rows[i] for i in chosen)] == [
        "" if p.digit is None else str(p.digit) for p in expected
    ]
    assert [float(rows[i]["confidence"]) for i in chosen] == pytest.approx(
        [p.confidence for p in expected], abs=1e-5
    )
    assert [rows[i]["decision"] for i in chosen] == [p.decision for p in expected]
    assert rows[1]["reason"] == "blank"
    assert {row["model_version"] for row in rows} == {reader.model_version}
    assert {row["error"] for row in rows} == {""}


@pytest.mark.parametrize(("end", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_run_that_was_ended_in_the_middle_goes_on_and_gives_the_same_file(
    end, code, array, whole, tmp_path, monkeypatch
):
    out = tmp_path / "out.csv"
    process = subprocess.Popen(
        [sys.executable, "-m", "inkdigits", "predict", array, "--out", out, "--workers", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    parts = tmp_path / "out.csv.parts"
    while len(list(parts.glob("0*.json"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    if end == signal.SIGINT:
        os.killpg(process.pid, end)  # as a terminal does: the processes that read get it too
    else:
        process.send_signal(end)
    assert process.wait(60) == code
    said = process.stderr.read().decode()
    process.stderr.close()
    assert ("--resume goes on" in said) == (end == signal.SIGINT)
    assert "Traceback" not in said
    kept = {int(path.stem) for path in parts.glob("0*.json")}
    assert 2 <= len(kept) < CHUNKS
    assert not out.exists()
    assert "--resume" in run(array, "--out", out, exit_code=1).stderr

    read = []
    original = Pool.read

    def watched(self, tasks):
        return original(self, (read.append(task.number) or task for task in tasks))

    monkeypatch.setattr(Pool, "read", watched)
    # A part that a power failure cut off is read again.
    damaged = min(kept)
    path = parts / f"{damaged:08}.json"
    path.write_bytes(path.read_bytes()[:1000])
    run(array, "--out", out, "--workers", 2, "--resume")
    assert out.read_text() == whole
    assert len(set(read)) == len(read)
    assert set(read) <= set(range(CHUNKS)) - (kept - {damaged})
    assert damaged in read
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]


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
    result = run(*given, "--out", out, "--workers", 1, exit_code=1)
    assert "4 of 6 pictures can't be read" in result.stderr
    assert "\x1b" not in result.stderr
    table = pq.read_table(out)
    assert tuple(table.column_names) == COLUMNS
    assert [str(field.type) for field in table.schema] == [
        *("string", "int8", "double", "string", "string", "double", "string", "string"),
    ]
    rows = table.to_pylist()
    assert [row["source"] for row in rows] == [
        str(folder / "1.png"),
        str(folder / "2\x1b[31m.png"),
        f"{folder}/3\\udcff.png",
        f"{tmp_path}/more.zip#../../outside.png",
        f"{tmp_path}/more.zip#huge.png",
        str(tmp_path / "missing.png"),
    ]
    assert [row["digit"] for row in rows] == [7, None, None, 7, None, None]
    errors = ["", "truncated or damaged", "not a picture", "", "11,534,336 bytes", "No such file"]
    for row, error in zip(rows, errors, strict=True):
        assert error in (row["error"] or "")
        assert (row["error"] is None) == (error == "")
    assert not list(tmp_path.parent.rglob("outside.png"))


def test_json_is_for_programs_and_more_failures_than_are_named_are_counted(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"x")
    out = tmp_path / "out.jsonl"
    result = run(*[bad] * 12, "--out", out, "--workers", 1, "--json", exit_code=1)
    answer = json.loads(result.stdout)
    assert (answer["pictures"], answer["failed"], len(answer["failures"])) == (12, 12, 10)
    assert answer["model_version"] == inkdigits.load().model_version
    assert "and 2 more" in result.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [tuple(row) for row in rows] == [COLUMNS] * 12
    assert rows[0]["digit"] is None
    assert rows[0]["source"] == str(bad)


def test_picture_that_ends_a_process_is_an_error_in_its_row(tmp_path):
    work = Work(tmp_path, None, inkdigits.Limits())
    with Pool(1, work) as pool:
        (done,) = pool.read(iter([Task(0, DeadlyChunk(PICTURE))]))
    assert (done.pictures, done.failed) == (3, 1)
    text = (tmp_path / "00000000.json").read_bytes().partition(b"\n")[2]
    columns = json.loads(text)["columns"]
    assert columns["digit"] == [7, None, 7]
    assert columns["error"][1] == "the process that read it was ended by signal 9"
    assert columns["error"][0] is None


def test_ctrl_c_that_reaches_the_processes_too_is_left_to_the_parent(array, tmp_path):
    (source,) = open_sources([array])
    with Pool(1, Work(tmp_path, None, inkdigits.Limits())) as pool:
        (worker,) = pool._workers
        os.kill(worker.process.pid, signal.SIGINT)
        (done,) = pool.read(iter([Task(0, next(source.chunks()))]))
        assert done.pictures == CHUNK_PICTURES
        assert pool._workers == [worker]


def test_missing_model_is_told_of_by_the_processes(array, tmp_path):
    out = tmp_path / "out.csv"
    arguments = (array, "--out", out, "--workers", 1, "--model", tmp_path / "no.onnx")
    assert "there is no artifact" in run(*arguments, exit_code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "out.txt"], 1, "must end in .csv, .jsonl, .parquet"),
        (["--out", "nowhere/out.csv"], 1, "can't be written"),
        (["--out", "out.csv", "--resume"], 1, "nothing to resume"),
        (["--out", "out.csv", "--device", "cpu"], 2, "leave --device out"),
        (["--resume"], 2, "go with --out"),
        (["--workers", "2"], 2, "go with --out"),
    ],
)
def test_wrong_calls_say_what_is_wrong(arguments, code, message, array, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in run(array, *arguments, exit_code=code).stderr
    assert list(tmp_path.iterdir()) == []


def test_parquet_without_pyarrow_is_refused_before_any_work(array, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendUnavailableError, match=r"inkdigits\[export\]"):
        predict_to_file([array], tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_the_same_file(tmp_path):
    first = Unfinished(tmp_path / "out.csv", resume=False)
    first.begin({"model": "a"})
    with pytest.raises(BatchError, match="another process is writing"):
        Unfinished(tmp_path / "out.csv", resume=True)
    first.close()
    Unfinished(tmp_path / "out.csv", resume=True).close()


def test_run_is_not_resumed_with_another_model_or_source(tmp_path):
    first = Unfinished(tmp_path / "out.csv", resume=False)
    first.begin({"model": "a", "sources": [1]})
    write_part(first.folder, 0, "key", part("a.png"))
    assert first.done(0, "key") == ChunkDone(0, 1, 0, ())
    assert first.done(1, "key") is None
    with pytest.raises(BatchError, match=r"around a\.png are others"):
        first.done(0, "another")
    with pytest.raises(BatchError, match=r"the model changed since .* \('a', now 'b'\)"):
        first.begin({"model": "b", "sources": [1]})
    first.begin({"model": "a", "sources": [1]})
    (first.folder / "run.json").write_text("")
    with pytest.raises(BatchError, match="is damaged"):
        first.begin({"model": "a", "sources": [1]})
    first.close()


def test_result_is_not_put_together_without_all_parts(tmp_path):
    unfinished = Unfinished(tmp_path / "out.csv", resume=False)
    write_part(unfinished.folder, 0, "key", part("a.png"))
    with pytest.raises(BatchError, match="00000001"):
        unfinished.finish("csv", 2)
    unfinished.close()
    assert not (tmp_path / "out.csv").exists()


def test_identity_of_sources_changes_with_their_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 9, 7), np.uint8))

    def identity():
        return [source.identity() for source in open_sources([tmp_path / "a.npy", tmp_path])]

    before = identity()
    assert json.loads(json.dumps(before)) == before == identity()
    np.save(tmp_path / "a.npy", np.zeros((3, 9, 7), np.uint8))
    assert identity() != before


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_every_form_keeps_odd_names_and_numbers(form):
    columns = part('a, "b"\n.png', "é=1.png")
    columns |= {"digit": [3, None], "confidence": [0.1 + 0.2, None], "novelty": [-1.5, None]}
    file = io.BytesIO()
    results.write(form, file, iter([columns, part("last.png", error="why")]))
    text = file.getvalue()
    if form == "parquet":
        rows = pq.read_table(io.BytesIO(text)).to_pylist()
    elif form == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = [
            {k: v or None for k, v in row.items()}
            for row in csv.DictReader(io.StringIO(text.decode(), newline=""))
        ]
    assert [row["source"] for row in rows] == ['a, "b"\n.png', "é=1.png", "last.png"]
    assert float(rows[0]["confidence"]) == 0.1 + 0.2
    assert rows[1]["confidence"] is None
    assert rows[2]["error"] == "why"


def test_parquet_groups_rows_so_that_they_do_not_all_wait_in_memory(monkeypatch):
    monkeypatch.setattr(results, "_PARQUET_ROWS", 4)
    file = io.BytesIO()
    results.write("parquet", file, (part("a", "b", "c") for _ in range(5)))
    groups = pq.ParquetFile(io.BytesIO(file.getvalue()))
    assert [groups.metadata.row_group(i).num_rows for i in range(3)] == [6, 6, 3]


def test_batches_are_bounded_in_bytes_and_errors_keep_their_place(monkeypatch, tmp_path):
    monkeypatch.setattr("inkdigits.batch.workers.BATCH_BYTES", 2 * len(PICTURE))
    sizes = []

    class Watching(FakeReader):
        def predict_batch(self, pictures, *, on_error="raise"):
            sizes.append(len(pictures))
            return super().predict_batch(pictures, on_error=on_error)

    class Chunk:
        def names(self):
            return list("abcdef")

        def pictures(self):
            yield from [PICTURE] * 3
            yield ImageError("no")
            yield from [PICTURE] * 2

    columns = read_chunk(Watching(), Task(0, Chunk()))
    assert sizes == [2, 1, 2]
    assert columns["error"] == [None, None, None, "no", None, None]
    assert columns["digit"] == [7, 7, 7, None, 7, 7]


def test_progress_has_rate_and_time_left_where_the_end_is_known():
    line = as_line(Progress(2500, 3, 10_000, 1234.5, 3725.0))
    assert "[######------------------]  25 %" in line
    assert "2,500 of 10,000" in line
    assert "1,234/s" in line
    assert "1:02:05 left" in line
    assert "3 can't be read" in line
    assert as_line(Progress(2500, 0, None, 10.0, None)) == "2,500 pictures  10/s"
    assert "99 %" in as_line(Progress(9999, 0, 10_000, 1.0, 1.0))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_for_terminals_only_and_leaves_the_line_empty():
    progress = Progress(1, 0, 2, 1.0, 1.0)
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        line = ProgressLine(stream, quiet=quiet)
        line.show(progress)
        line.end()
        assert not line.on
        assert stream.getvalue() == ""
    terminal = Terminal()
    line = ProgressLine(terminal, quiet=False)
    line.show(progress)
    line.show(progress)
    written = terminal.getvalue()
    assert written.count("\r") == 1
    line.end()
    assert terminal.getvalue().removeprefix(written).strip() == ""
    assert printable("a\x1b[2J\nb é") == "a\\x1b[2J\\nb é"


def test_progress_counts_what_an_earlier_run_did_but_not_in_its_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK_PICTURES", 10)
    np.save(tmp_path / "a.npy", np.zeros((40, 9, 7), np.uint8))
    opened = open_sources([tmp_path / "a.npy"])
    unfinished = Unfinished(tmp_path / "out.csv", resume=False)
    keys = [chunk.key() for chunk in opened[0].chunks()]
    write_part(unfinished.folder, 0, keys[0], part(*"abcdefghij", error="x"))
    counted = bulk._Run(unfinished, opened)
    tasks = counted.tasks()
    assert [task.number for task in tasks] == [1, 2, 3]
    before = counted.progress()
    assert (before.pictures, before.failed, before.expected, before.rate) == (10, 10, 40, 0)
    assert before.seconds_left is None
    counted.add(ChunkDone(1, 10, 1, (("q", "why"),)))
    after = counted.progress()
    assert after.pictures == 20
    assert after.seconds_left == pytest.approx(20 / after.rate)
    assert counted.failures == tuple((name, "x") for name in "abcdefghij")
    unfinished.close()
