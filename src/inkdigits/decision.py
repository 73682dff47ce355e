"""From probabilities to what a user does with them: accept, review or reject. NumPy only."""

from __future__ import annotations

from typing import Literal, TypeAlias

Decision: TypeAlias = Literal["accept", "review", "reject"]
Reason: TypeAlias = Literal["blank", "not_a_digit", "several_digits", "unreadable"]
