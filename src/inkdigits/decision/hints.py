"""What a caller knows of a number before it is read: its length, its range, its check digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict, get_args

from inkdigits.errors import HintError

CheckName: TypeAlias = Literal["luhn", "mod97"]
CHECKS: tuple[CheckName, ...] = get_args(CheckName)
MOST_DIGITS = 64
"""No length may be above it."""


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a number is as a hint says."""

    name: Literal["length", "min", "max", "luhn", "mod97"]
    ok: bool


class ReadOptions(TypedDict, total=False):
    """How a number is to be read; all are optional."""

    length: int | tuple[int, int] | None  # digits: exactly, or the fewest and the most
    min: int | None  # the smallest value
    max: int | None  # the largest value
    check: CheckName | None  # "luhn" (ISO/IEC 7812-1) or "mod97" (ISO 7064, the rest is 1)
    risk: float | None  # tolerated share of wrong numbers among the accepted; None: the reader's


@dataclass(frozen=True, slots=True)
class Hints:
    """The hints for one number; HintError when they are made with an invalid value."""

    lengths: tuple[int, int] | None = None  # the fewest and the most digits
    smallest: int | None = None
    largest: int | None = None
    check_name: CheckName | None = None

    def __post_init__(self) -> None:
        if self.lengths is not None:
            fewest, most = self.lengths
            if fewest > most:
                raise HintError(f"length is {fewest} to {most}; the fewest digits come first")
            if not 1 <= fewest <= most <= MOST_DIGITS:
                raise HintError(
                    f"length is {fewest} to {most}; it must be within 1 to {MOST_DIGITS}"
                )
        for name, value in (("min", self.smallest), ("max", self.largest)):
            if value is not None and value < 0:
                raise HintError(f"{name} is {value}; it must be 0 or more")
        if self.smallest is not None and self.largest is not None and self.smallest > self.largest:
            raise HintError(f"min is {self.smallest} and max {self.largest}; swap them")
        if self.check_name is not None and self.check_name not in CHECKS:
            raise HintError(f"check is {self.check_name!r}; it must be {' or '.join(CHECKS)}")

    @classmethod
    def of(cls, options: ReadOptions) -> Hints:
        """Make the hints that some options give; HintError where they are invalid."""
        length = options.get("length")
        lengths = (length, length) if isinstance(length, int) else length
        return cls(lengths, options.get("min"), options.get("max"), options.get("check"))

    def check(self, text: str) -> tuple[Check, ...]:
        """Return whether digits are as each of the hints says."""
        value = int(text) if text else -1
        checks = []
        if self.lengths is not None:
            checks.append(Check("length", self.lengths[0] <= len(text) <= self.lengths[1]))
        if self.smallest is not None:
            checks.append(Check("min", value >= self.smallest))
        if self.largest is not None:
            checks.append(Check("max", 0 <= value <= self.largest))
        if self.check_name is not None:
            passes = luhn if self.check_name == "luhn" else mod97
            checks.append(Check(self.check_name, passes(text)))
        return tuple(checks)

    def holds(self, text: str) -> bool:
        """Return whether digits are as all the hints say."""
        return all(check.ok for check in self.check(text))


NO_HINTS = Hints()


def luhn(text: str) -> bool:
    """Return whether digits end in their check digit by Luhn's algorithm (ISO/IEC 7812-1).

    >>> luhn("79927398713"), luhn("79927398710")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(map(int, reversed(text))):
        doubled = 2 * digit if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return bool(text) and total % 10 == 0


def mod97(text: str) -> bool:
    """Return whether digits end in their two check digits by ISO 7064, MOD 97-10.

    >>> mod97("79444"), mod97("79445")
    (True, False)
    """
    return bool(text) and int(text) % 97 == 1
