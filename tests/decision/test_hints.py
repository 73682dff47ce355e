import pytest

from inkdigits.decision.hints import Check, Hints, luhn, mod97
from inkdigits.errors import HintError


@pytest.mark.parametrize(
    ("text", "passes"),
    [("4539578763621486", True), ("4539578763621487", False), ("18", True), ("", False)],
)
def test_luhn_tells_a_number_from_one_with_a_wrong_digit(text, passes):
    assert luhn(text) == passes


def test_every_swap_of_neighbours_breaks_mod_97():
    number = "79412345678"
    valid = next(f"{number}{end:02d}" for end in range(97) if int(f"{number}{end:02d}") % 97 == 1)
    assert mod97(valid)
    for i in range(len(valid) - 1):
        swapped = valid[:i] + valid[i + 1] + valid[i] + valid[i + 2 :]
        assert mod97(swapped) == (swapped == valid)


def test_each_hint_is_checked_by_its_name():
    hints = Hints.of({"length": (2, 3), "min": 10, "max": 99, "check": "luhn"})
    assert hints.check("18") == tuple(Check(n, True) for n in ("length", "min", "max", "luhn"))
    assert [check.name for check in hints.check("100") if not check.ok] == ["max", "luhn"]
    assert not hints.holds("")
    assert Hints.of({"length": 5}).lengths == (5, 5)
    assert Hints.of({}).check("1") == ()


WRONG = [
    *({"length": 0}, {"length": (3, 2)}, {"length": 65}),
    *({"min": -1}, {"min": 5, "max": 4}, {"check": "crc"}),
]


def test_length_that_falls_is_told_to_begin_with_the_fewest():
    with pytest.raises(HintError, match="8 to 3; the fewest digits come first"):
        Hints.of({"length": (8, 3)})


@pytest.mark.parametrize("options", WRONG)
def test_hint_that_cannot_be_is_an_error_that_names_it(options):
    with pytest.raises(HintError, match=next(iter(options))):
        Hints.of(options)
