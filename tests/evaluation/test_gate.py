import pytest
from support.artifacts import worse

import inkdigits
from inkdigits.errors import DataError
from inkdigits.evaluation.gate import read_gate, run_gate
from inkdigits.ink.png import encode_png

GATE = """
max_slowdown = 100
max_size_mb = 10
[[on]]
name = "mine"
data = "own"
limit = 60
max_accuracy_drop = 0.03
min_accuracy = 0.5
max_wrong_of_accepted = 0.5
max_coverage_drop = 1.0
[watch]
readings = 500
max_rejected = 0.1
"""


@pytest.fixture
def gate(digits, tmp_path):
    inks, labels = digits
    for number in range(60):
        path = tmp_path / "own" / str(labels[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(255 - inks[number]))
    (tmp_path / "gate.toml").write_text(GATE)
    return tmp_path / "gate.toml"


def test_gate_lets_pass_what_is_as_good_and_stops_what_is_worse(gate, tmp_path):
    a, b = inkdigits.load(), inkdigits.load(worse(tmp_path / "worse.onnx", by=15.0))
    (tmp_path / "own" / "0" / "a.png").write_bytes(b"no picture")
    lines = []
    outcome = run_gate(gate, a, a, 9.9, report=lines.append)
    assert outcome.failures == []
    assert "own/0/a.png: These 10 bytes are not a picture" in lines[0]
    assert lines[1].startswith("mine\n")
    record = run_gate(gate, a, b, 7.5).to_record()
    assert record["on"]["mine"]["accuracy"][0] > record["on"]["mine"]["accuracy"][1]
    assert record["failures"][0].startswith("mine: ")
    assert any("loss of accuracy" in failure for failure in record["failures"])
    gate.write_text(GATE.replace("max_slowdown = 100", "max_slowdown = 0.0001"))
    slow, large = (run_gate(gate, a, a, size).failures[0] for size in (9.9, 10.1))
    assert "times as long" in slow
    assert large == "the artifact has 10.10 MB; the limit is 10 MB"


def test_too_few_pictures_do_not_let_an_equal_model_pass(gate):
    gate.write_text(GATE.replace("= 0.03", "= 0.0005"))
    same = inkdigits.load()
    (failure,) = run_gate(gate, same, same, 1).failures
    assert "on 60 pictures is 0.00 %, at most 2.65 %" in failure
    assert "Use about 3,288 pictures." in failure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing required field `on`"),
        ("on = []", "length >= 1"),
        ("[[on]]\nname = 'a'\ndata = 'b'\nmax_acuracy_drop = 0.1", "unknown field"),
        ("[[on]]\nname = 'a'\ndata = 'b'\nmin_accuracy = 98", "<= 1.0"),
        ("[[on]]\nname = 'a'\ndata = 'b'\nmax_accuracy_drop = 0.0", "> 0.0"),
        ("[[on]]\nname = 'a'\ndata = 'b'", "has no limit"),
        ("[[on]]\nname = 'a'\ndata = 'b'\nmin_accuracy = 0.5\n" * 2, "the same name"),
        ("= ", "is invalid"),
    ],
)
def test_what_a_gate_cannot_say_is_an_error(text, message, tmp_path):
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_gate(tmp_path / "gate.toml")


def test_watch_is_for_the_service_and_optional(gate):
    assert read_gate(gate).watch.readings == 500
    gate.write_text("[[on]]\nname = 'a'\ndata = ['b', 'c']\nmin_accuracy = 0.5")
    assert read_gate(gate).watch is None
