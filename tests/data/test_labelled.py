import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from support.databases import a_record, opened, sqlite_url
from support.idx import write_idx
from support.pictures import encoded, seven

from inkdigits.data.labelled import describe_left_out, read_labelled
from inkdigits.errors import DataError, StoreUnavailableError
from inkdigits.ink.png import encode_png
from inkdigits.log.tables import write_table
from inkdigits.types import NO_DIGIT

PICTURE = encoded(seven())


@pytest.fixture
def folder(tmp_path):
    """Four sevens, a one, a picture without a digit, and what is none."""
    for name in ("7/a.png", "7/b.png", "7/deep/7/c.png", "1/d.png", "none/e.png"):
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PICTURE)
    (tmp_path / "own" / "7" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "own" / "sheet.png").write_bytes(PICTURE)
    return tmp_path / "own"


def labels_of(*sources, **options):
    return [example.label for example in read_labelled(sources, **options).examples]


def table_of(folder, form, columns, **values):
    path = folder / f"table.{form}"
    with path.open("wb") as file:
        write_table(form, file, columns, [values])
    return path


def test_folders_are_labels_and_what_cannot_be_read_is_named(folder, tmp_path):
    found = read_labelled([folder])
    assert [example.label for example in found.examples] == [1, 7, 7, 7, 7, NO_DIGIT]
    ink = found.inks()
    assert (ink.inks.shape, ink.labels.tolist()) == ((5, 28, 28), [1, 7, 7, 7, NO_DIGIT])
    lines = []
    describe_left_out(ink.left_out, lines.append, most=1)
    assert "sheet.png: it is not in a folder" in lines[0]
    assert lines[1] == "left out: 1 more"
    assert "bad.png" in ink.left_out[1][0]
    packed = tmp_path / "own.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in folder.glob("*/*.png"):
            archive.write(path, path.relative_to(folder))
    assert sorted(labels_of(packed)) == [NO_DIGIT, 1, 7, 7, 7]
    # A limit takes pictures of all labels, not the first ones.
    assert labels_of(packed, folder, limit=2) == [NO_DIGIT, 7, 1, 7]


def test_labels_and_writers_come_from_names_by_a_pattern(tmp_path):
    for name in ("ann_7_1.png", "bob_none_1.png"):
        (tmp_path / name).write_bytes(PICTURE)
    found = read_labelled([tmp_path], pattern=r"(?P<writer>\w+?)_(?P<label>[^_]+)")
    assert [(example.label, example.writer) for example in found.examples] == [
        *((7, "ann"), (NO_DIGIT, "bob")),
    ]
    for wrong, message in (
        ("(", "not a regular expression"),
        ("x", "has no group"),
        ("(?P<label>z)", "is not in it"),
        ("(?P<label>ann|bob)", "the label is 'ann'"),
    ):
        with pytest.raises(DataError, match=message):
            read_labelled([tmp_path], pattern=wrong)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_tables_name_pictures_and_labels(folder, form):
    columns = {"path": "text", "label": "text", "writer": "text"}
    table = table_of(
        folder,
        form,
        columns,
        path=["7/a.png", "1/d.png", "gone.png"],
        label=["7", "none", "3"],
        writer=["ann", "bob", "bob"],
    )
    found = read_labelled([table]).inks()
    assert found.labels.tolist() == [7, NO_DIGIT]
    assert [example.writer for example in found.examples] == ["ann", "bob"]
    assert "row 3: gone.png" in found.left_out[0][0]


def test_table_with_a_label_that_cannot_be_is_an_error_with_its_row(folder):
    columns = {"path": "text", "label": "text"}
    table = table_of(folder, "csv", columns, path=["a.png"] * 2, label=["7", "seven"])
    with pytest.raises(DataError, match="row 2: the label is 'seven'; allowed are 0 to 9"):
        read_labelled([table])
    table = table_of(folder, "csv", {"file": "text"}, file=["a.png"])
    with pytest.raises(DataError, match="columns file; needed are path and label"):
        read_labelled([table])


def test_log_is_read_from_its_database_and_from_each_export(tmp_path):
    given = {"feedback_at": a_record().created_at, "feedback_by": "page", "owner": "ann"}
    url = sqlite_url(tmp_path)
    with opened(url, tmp_path) as store:
        records = [a_record(n, label=str(n + 1), **given) for n in range(3)]
        for record in (*records, a_record(3), a_record(4, label="none", **given)):
            store.keep(record)
        for form in ("csv", "parquet"):
            with (tmp_path / f"log.{form}").open("wb") as file:
                store.export(form, file)
    for source in (url, tmp_path / "log.csv", tmp_path / "log.parquet"):
        found = read_labelled([source])
        assert [example.label for example in found.examples] == [1, 2, 3, NO_DIGIT]
        assert all(example.at.startswith("2026-03-01") for example in found.examples)
        np.testing.assert_array_equal(found.examples[0].picture(), records[0].ink)
        assert len(found.left_out) == (source != url)
    with pytest.raises(StoreUnavailableError, match="no database"):
        read_labelled([f"sqlite:///{tmp_path}/none.sqlite3"])
    assert not (tmp_path / "none.sqlite3").exists()


def test_digits_of_a_number_are_examples_each_where_all_were_found(tmp_path, digits):
    two = digits[0][:2].tobytes()
    path = tmp_path / "log.jsonl"
    columns = {"closest": "text", "ink": "ink", "label": "text"}
    with path.open("wb") as file:
        rows = {"closest": ["42"] * 2, "ink": [two] * 2, "label": ["42", "423"]}
        write_table("jsonl", file, columns, [rows])
    found = read_labelled([path])
    assert [(e.label, e.name) for e in found.examples] == [
        *((4, f"{path}, row 1, digit 1"), (2, f"{path}, row 1, digit 2")),
    ]
    assert "does not fit the 2 digits" in found.left_out[0][1]


@pytest.mark.parametrize(("label", "chosen"), [("1", [2]), ("none", [2]), ("42", [0, 1])])
def test_what_was_read_as_a_number_is_an_example_as_a_whole_too(tmp_path, digits, label, chosen):
    path = tmp_path / "log.jsonl"
    with path.open("wb") as file:
        row = {"closest": ["42"], "ink": [digits[0][:3].tobytes()], "label": [label]}
        write_table("jsonl", file, {"closest": "text", "ink": "ink", "label": "text"}, [row])
    found = read_labelled([path])
    assert not found.left_out
    for example, place in zip(found.examples, chosen, strict=True):
        np.testing.assert_array_equal(example.picture(), digits[0][place])


def test_idx_files_need_their_labels(tmp_path, digits):
    inks, labels = digits
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    write_idx(raw / "t10k-images-idx3-ubyte", inks[:20])
    with pytest.raises(DataError, match="no file of labels"):
        read_labelled([tmp_path])
    for count, message in ((19, "fewer than the pictures"), (21, "for 20 pictures")):
        write_idx(raw / "t10k-labels-idx1-ubyte", labels[:count])
        with pytest.raises(DataError, match=message):
            read_labelled([tmp_path])
    write_idx(raw / "t10k-labels-idx1-ubyte", labels[:20])
    assert labels_of(tmp_path) == labels[:20].tolist()
    assert labels_of(raw / "t10k-images-idx3-ubyte", limit=5) == labels[:20:4].tolist()
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"no labels")
    with pytest.raises(DataError, match="not an IDX file of labels"):
        read_labelled([tmp_path])


def test_sources_without_labelled_pictures_are_errors(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 28, 28), np.uint8))
    (tmp_path / "list.jsonl").write_text(json.dumps([1]) + "\n")
    (tmp_path / "empty.csv").write_text("path,label\n")
    (tmp_path / "bad.zip").write_bytes(b"PK")
    (tmp_path / "lonely.png").write_bytes(PICTURE)
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.npy", "no labels"),
        ("list.jsonl", "no JSON object"),
        ("empty.csv", "no labelled"),
        ("bad.zip", "cannot be read: File is not a zip"),
        ("none", "does not exist"),
        ("lonely.png", "it is not in a folder"),
        ("empty", "contains no pictures"),
    ):
        with pytest.raises(DataError, match=message):
            read_labelled([tmp_path / name])


def test_writers_of_a_table_may_be_numbers(tmp_path, digits):
    rows = []
    for number, (ink, label) in enumerate(zip(digits[0][:40], digits[1], strict=False)):
        (tmp_path / f"{number}.png").write_bytes(encode_png(ink))
        rows.append({"path": f"{number}.png", "label": float(label), "writer": number % 4})
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pictures = read_labelled([tmp_path / "own.jsonl"]).inks()
    assert pictures.labels.tolist() == digits[1][:40].tolist()
    assert set(pictures.writers) == {"0", "1", "2", "3"}
    assert len(set(pictures.writers[pictures.held_back(0.25)])) == 1


def by_writer_of(pictures, writer_of):
    examples = [replace(one, writer=writer_of(n)) for n, one in enumerate(pictures.examples)]
    return replace(pictures, examples=examples).held_back(0.3)


def test_held_back_share_keeps_writers_times_and_equal_pictures_together(tmp_path, digits):
    inks, _ = digits
    columns = {"ink": "ink", "label": "text", "created_at": "text"}
    many = {"ink": [*map(np.ndarray.tobytes, inks[:100])] * 2, "label": ["1"] * 200}
    whole = read_labelled(
        [table_of(tmp_path, "jsonl", columns, created_at=[None] * 200, **many)]
    ).inks()
    held = whole.held_back(0.3)
    assert 0.25 < held.mean() < 0.35
    assert (held[:100] == held[100:]).all()
    times = [f"2026-03-{1 + n // 10:02}" for n in range(100)] * 2
    table = table_of(tmp_path, "jsonl", columns, created_at=times, **many)
    later = read_labelled([table]).inks()
    assert np.flatnonzero(later.held_back(0.3)[:100]).tolist() == list(range(70, 100))
    assert by_writer_of(whole, lambda n: "one").tolist() == held.tolist()
    most = by_writer_of(whole, lambda n: "most" if n % 10 else "few")
    assert np.flatnonzero(most).tolist() == list(range(0, 200, 10))
    by_writer = by_writer_of(whole, lambda n: f"writer {n % 5}")
    assert by_writer.mean() == 0.4
    assert {n % 5 for n in np.flatnonzero(by_writer)}.isdisjoint(
        n % 5 for n in np.flatnonzero(~by_writer)
    )
