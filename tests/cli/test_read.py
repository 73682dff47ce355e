import json

import numpy as np
import pytest
from PIL import Image
from support.commands import run
from support.pictures import encoded, seven


@pytest.fixture
def pictures(tmp_path):
    """A line of three sevens, and an empty one."""
    line = np.full((120, 330), 255, np.uint8)
    for left in (10, 110, 210):
        line[10:110, left : left + 100] = np.asarray(seven(100, 8))
    (tmp_path / "line.png").write_bytes(encoded(Image.fromarray(line)))
    (tmp_path / "none.png").write_bytes(encoded(Image.new("L", (100, 50), 255)))
    return tmp_path


def test_read_prints_a_table_of_files_and_folders(pictures):
    head, line, none = run("read", pictures).stdout.splitlines()
    assert head.split() == ["file", "number", "confidence", "decision"]
    assert line.split()[1] == "777"
    assert none.endswith("reject (no ink)")


def test_number_that_fails_a_check_is_for_review_with_the_reason(pictures):
    (pictures / "one.png").write_bytes(encoded(seven()))
    line = run("read", "--check", "luhn", pictures / "one.png").stdout.splitlines()[1]
    assert line.endswith("review (fails luhn)")


def test_read_json_is_for_programs(pictures):
    answer = json.loads(run("read", "--json", "--length", "3", pictures / "line.png").stdout)
    (number,) = answer["numbers"]
    assert (number["text"], len(number["digits"])) == ("777", 3)
    assert number["checks"] == [{"name": "length", "ok": True}]


def test_read_regions_reads_each_field_of_a_page(pictures):
    regions = pictures / "regions.json"
    regions.write_text("[[0, 0, 115, 120], [100, 0, 230, 120], [0, 0, 330, 9]]")
    answer = run("read", "--json", "--regions", regions, pictures / "line.png").stdout
    numbers = json.loads(answer)["numbers"]
    assert [number["text"] for number in numbers] == ["7", "77", ""]
    assert numbers[1]["digits"][0]["box"][0] > 100
    # What is outside of one picture is inside of another.
    regions.write_text("[[0, 0, 115, 120]]")
    outside = run("read", "--regions", regions, pictures, exit_code=1)
    assert "not inside the picture" in outside.stdout
    assert "line.png [0, 0, 115, 120]       7" in outside.stdout
    table = pictures / "regions.csv"
    table.write_text("source,left,top,width,height\nother.png,0,0,9,9\n")
    for out in ([], ["--out", pictures / "out.csv", "--workers", 1]):
        done = run("read", "--regions", table, pictures / "line.png", *out, exit_code=1)
        assert "--regions has no region for this picture" in done.output
        assert "names 1 picture that are not in SOURCE, such as other.png" in done.stderr


def test_read_that_is_called_wrongly_says_what_is_allowed(pictures):
    run("read", "--length", "few", pictures, exit_code=2)
    for wrong in ("{}", "[]", "[[1e400, 0, 1, 1]]", "[[0, 0, 1]]"):
        (pictures / "regions.json").write_text(wrong)
        done = run("read", "--regions", pictures / "regions.json", pictures, exit_code=2)
        assert "must contain a JSON list of" in done.stderr
    assert "must be within 1 to" in run("read", "--length", "0", pictures, exit_code=1).stderr
    (pictures / "bad.png").write_bytes(b"no picture")
    failed = run("read", pictures, exit_code=1)
    assert "1 of 3 pictures cannot be read" in failed.stderr
    assert "777" in failed.stdout
