"""From the pieces of a line to digits: candidates, and the best path through them.

Neighbouring pieces are joined to candidates, and a classifier reads all of them in one batch. It
has a logit for "no digit", which rejects halves and pairs. The best path is found by dynamic
programming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from inkdigits.decision.pieces import SMALL, Pieces
from inkdigits.ink.normalize import normalise
from inkdigits.ink.plain import Foreground
from inkdigits.types import Doubles, Floats, Ink

ReadInks: TypeAlias = Callable[[Ink], Floats]
"""A classifier: inks (N, 28, 28) → logits (N, 10), where no digit has the logit 0."""

# The most pieces of one digit, and its greatest width, as a share of the height.
MOST_PIECES = 8
WIDEST = 1.35
# The logarithm of width by height of each digit of MNIST as people slant them, and its deviation.
ASPECT = np.array([-0.08, -0.83, -0.04, -0.21, -0.21, -0.02, -0.28, -0.28, -0.25, -0.38])
ASPECT_DEVIATION = np.array([0.24, 0.45, *[0.24] * 8])
# How many paths are followed, and how many digits of a candidate.
PATHS, DIGITS = 8, 3
# A component is not cut where it reads as a digit with this probability, in a shape like its own.
SURE, LIKELY_SHAPE = 0.98, 1.5


@dataclass(frozen=True, slots=True)
class Costs:
    """What speaks against a path, in nats."""

    shape: float = 0.2  # of half the squared deviations of a candidate's aspect
    low: float = 8.0  # per share of the height that a digit is lower than ``least``
    least: float = 0.7
    high: float = 25.0  # per share of the height that a digit is higher than ``most``
    most: float = 1.06
    gap: float = 4.0  # of a gap between joined components, per height
    cut: float = -0.2  # of a cut
    crossed: float = 0.3  # per stroke that a cut crosses
    small: float = 0.3  # of leaving out what is low
    crossed_sign: float = -4.0  # of leaving out what may be the sign of a dollar
    left_out: float = 0.5  # of leaving out what is as high as a digit and reads as none
    unread: float = 9.0  # of leaving out what is too wide to be read


COSTS = Costs()


class Segment(NamedTuple):
    """One digit of a path."""

    digit: int
    candidate: int


class Path(NamedTuple):
    """One way to read a line."""

    score: float  # in nats
    segments: tuple[Segment, ...]
    left_out: int  # pieces as high as a digit that are none, or that may be a sign
    text: str  # the digits that were read

    def followed_by(self, step: _Step) -> Path:
        """Return the path with one more step."""
        score, left_out = self.score + step.value, self.left_out + step.left_out
        if step.segment is None:
            return Path(score, self.segments, left_out, self.text)
        text = f"{self.text}{step.segment.digit}"
        return Path(score, (*self.segments, step.segment), left_out, text)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may be a digit: neighbouring pieces of a line, and how they read."""

    first: list[int]
    last: list[int]  # exclusive
    shape: Doubles  # (n, 5): log aspect, height, gap, ink of the cut or 0, and 1 for a cut
    log_p: Doubles  # (n, 11) of the digits, and of no digit
    inks: Ink  # (n, 28, 28)

    def scores(self, costs: Costs) -> Doubles:
        """Return (n, 10), how well each candidate is each digit, in nats."""
        aspect, high, gap, crossed, is_cut = self.shape.T
        cost = costs.low * np.maximum(0, costs.least - high)
        cost += costs.high * np.maximum(0, high - costs.most) + costs.gap * gap
        cost += costs.cut * is_cut + costs.crossed * crossed
        deviation = (aspect[:, np.newaxis] - ASPECT) / ASPECT_DEVIATION
        scores: Doubles = self.log_p[:, :10] - cost[:, np.newaxis]
        scores -= 0.5 * costs.shape * np.square(deviation)
        return scores


def find_candidates(pieces: Pieces, read: Callable[[Ink], Floats]) -> Candidates:
    """Join neighbouring pieces to what may be a digit, and read all in one batch.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[10:30, 20:24] = ink[10:30, 34:38] = 1
    >>> from inkdigits.decision.pieces import find_line
    >>> pieces = find_line(ink, 0.4).pieces()
    >>> found = find_candidates(pieces, lambda inks: np.zeros((len(inks), 10), np.float32))
    >>> list(zip(found.first, found.last))
    [(0, 1), (0, 2), (1, 2)]
    """
    first, last, shape, inks = [], [], [], []
    for i in range(len(pieces)):
        for j in range(i + 1, min(len(pieces), i + MOST_PIECES) + 1):
            left, top, right, bottom = pieces.box(i, j)
            if right - left > WIDEST * pieces.height and j > i + 1:
                break
            high = (bottom - top) / pieces.height
            if high < SMALL or right - left > 2 * WIDEST * pieces.height:
                continue
            first.append(i)
            last.append(j)
            crossed = float(pieces.cut[j - 1])
            is_cut = not np.isnan(crossed)
            aspect = np.log((right - left) / (bottom - top))
            shape.append((aspect, high, _gap(pieces, i, j), crossed if is_cut else 0.0, is_cut))
            inks.append(normalise(Foreground.whole_picture(pieces.patch(i, j))))
    shapes = np.array(shape, dtype=np.float64).reshape(-1, 5)
    if not inks:
        return Candidates(first, last, shapes, np.zeros((0, 11)), np.zeros((0, 28, 28), np.uint8))
    made = np.stack(inks)
    logits = read(made).astype(np.float64)
    log_p = log_softmax(np.concatenate([logits, np.zeros((len(logits), 1))], axis=1))
    return Candidates(first, last, shapes, log_p, made)


def _gap(pieces: Pieces, first: int, last: int) -> float:
    """Return the empty width between components that are joined, as a share of the height."""
    gap = 0.0
    for i in range(first, last - 1):
        if pieces.component[i] != pieces.component[i + 1]:
            gap += max(0, pieces.left[i + 1] - pieces.right[first : i + 1].max())
    return gap / pieces.height


def best_paths(
    pieces: Pieces,
    candidates: Candidates,
    lengths: tuple[int, int] | None = None,
    costs: Costs = COSTS,
) -> list[Path]:
    """Return the likeliest ways to read pieces, the best first, each with another text.

    ``lengths`` are the fewest and most digits; None is any number. To read nothing is always one.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[10:30, 20:24] = ink[10:30, 60:64] = 1
    >>> from inkdigits.decision.pieces import find_line
    >>> pieces = find_line(ink, 0.4).pieces()
    >>> is_one = np.float32([[0, 9, 0, 0, 0, 0, 0, 0, 0, 0]])
    >>> candidates = find_candidates(pieces, lambda inks: is_one.repeat(len(inks), axis=0))
    >>> best_paths(pieces, candidates)[0].text
    '11'
    """
    at: list[list[Path]] = [[Path(0.0, (), 0, "")]]
    for steps in _steps(pieces, candidates, costs):
        here: dict[str, Path] = {}
        for step in steps:
            for path in at[step.first]:
                _add(here, path.followed_by(step))
        at.append(_best(here.values(), lengths))
    fewest = 0 if lengths is None else lengths[0]
    return [path for path in at[-1] if len(path.segments) >= fewest or not path.segments]


class _Step(NamedTuple):
    """How a path may continue: by a digit, or without some pieces."""

    first: int  # the piece that it begins with
    value: float  # in nats
    segment: Segment | None
    left_out: int = 0


def _steps(pieces: Pieces, candidates: Candidates, costs: Costs) -> list[list[_Step]]:
    """Return the steps that end with each piece."""
    scores = candidates.scores(costs)
    order = np.argsort(-scores, axis=1)[:, :DIGITS].tolist()
    values = scores.tolist()
    steps = [list(_left_out(pieces, end, candidates, costs)) for end in range(1, len(pieces) + 1)]
    for c, (first, last) in enumerate(zip(candidates.first, candidates.last, strict=True)):
        is_doubtful = bool(pieces.crossed[first:last].any())
        for digit in order[c]:
            steps[last - 1].append(_Step(first, values[c][digit], Segment(digit, c), is_doubtful))
    return steps


def _add(here: dict[str, Path], path: Path) -> None:
    known = here.get(path.text)
    if known is None or path.score > known.score:
        here[path.text] = path


def _best(paths: Iterable[Path], lengths: tuple[int, int] | None) -> list[Path]:
    """Return the best paths; with a stated length, the best of each number of digits."""
    ordered = sorted(paths, key=lambda path: -path.score)
    if lengths is None:
        return ordered[:PATHS]
    kept: dict[int, list[Path]] = {}
    for path in ordered:
        group = kept.setdefault(len(path.segments), [])
        if len(group) < PATHS and len(path.segments) <= lengths[1]:
            group.append(path)
    return sorted((path for group in kept.values() for path in group), key=lambda p: -p.score)


def _left_out(pieces: Pieces, end: int, candidates: Candidates, costs: Costs) -> Iterator[_Step]:
    """Yield how a path continues without what ends here."""
    i = end - 1
    height = float(pieces.bottom[i] - pieces.top[i]) / pieces.height
    if height < SMALL:
        yield _Step(i, -costs.small * height / SMALL, None)
        return
    # All parts of a component are left out together.
    first = i
    while first and pieces.component[first - 1] == pieces.component[i]:
        first -= 1
    if end < len(pieces) and pieces.component[end] == pieces.component[i]:
        return
    for c, ends in enumerate(zip(candidates.first, candidates.last, strict=True)):
        if ends == (first, end):
            is_sign = bool(pieces.crossed[i])
            cost = costs.crossed_sign if is_sign else costs.left_out
            yield _Step(first, float(candidates.log_p[c, 10]) - cost, None, not is_sign)
            return
    yield _Step(first, -costs.unread, None, 1)


def doubtful(pieces: Pieces, candidates: Candidates) -> set[int]:
    """Return the components that are not one digit for certain, and may be cut.

    >>> ink = np.zeros((40, 90), np.float32)
    >>> ink[10:30, 20:60] = 1
    >>> from inkdigits.decision.pieces import find_line
    >>> pieces = find_line(ink, 0.4).pieces()
    >>> doubtful(pieces, find_candidates(pieces, lambda inks: np.zeros((len(inks), 10))))
    {0}
    """
    found = set(pieces.component.tolist())
    for c, (first, last) in enumerate(zip(candidates.first, candidates.last, strict=True)):
        if last - first > 1:
            continue
        digit = int(candidates.log_p[c].argmax())
        if digit == 10 or candidates.log_p[c, digit] < np.log(SURE):
            continue
        deviation = (candidates.shape[c, 0] - ASPECT[digit]) / ASPECT_DEVIATION[digit]
        if deviation < LIKELY_SHAPE:
            found.discard(int(pieces.component[first]))
    return found


def log_softmax(logits: Doubles) -> Doubles:
    """Return the logarithms of the softmax of each row (N, C).

    >>> log_softmax(np.zeros((1, 2))).round(3).tolist()
    [[-0.693, -0.693]]
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
