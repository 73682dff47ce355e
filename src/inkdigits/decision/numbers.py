"""From the ink of a field to a number and a decision: two views of a line have to agree.

A stated share of wrong numbers is kept by a threshold, and thresholds do not hold for other
sources. So a number is accepted only where a second segmentation of a sheared line reads alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from inkdigits.decision.hints import MOST_DIGITS, NO_HINTS, Hints
from inkdigits.decision.pieces import Pieces, clean_ink, find_line
from inkdigits.decision.policy import Decision, DecisionPolicy, NumberReason
from inkdigits.decision.prediction import NumberDigit, NumberReading
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.decision.segmentation import (
    Candidates,
    Path,
    ReadInks,
    best_paths,
    doubtful,
    find_candidates,
    log_softmax,
)
from inkdigits.types import Floats, Ink

ALTERNATIVES, LEAST_ALTERNATIVE = 5, 0.001
"""How many other numbers are named, and the least probability of one."""
LEAST_HEIGHT = 7
"""Pixels; ink that is lower is dirt."""
LEAST_SHARE = 0.2
"""Of a region's height, likewise."""
TEMPERATURE = 0.7
"""Divides the scores of paths, in nats. Fitted, as NUMBER_POLICY was, to 1,800 numbers that
``benchmarks/number_reading.py --calibrate --n 600`` wrote with digits of the calibration part:
spaced, boxed and photographed, 93.9 % of them read exactly."""
_CHOICES: Final = (
    AcceptThreshold(0.99944, 0.01, 0.95, 0.482, 1800, 868, 3),
    AcceptThreshold(0.9901, 0.02, 0.95, 0.623, 1800, 1122, 14),
    AcceptThreshold(0.5, 0.05, 0.95, 0.924, 1800, 1664, 55),
)
NUMBER_POLICY: Final = DecisionPolicy(0.99944, 0.01, 0.95, _CHOICES)
"""At most 1 % of the accepted numbers are wrong, with 95 % confidence: 3 of 868 were."""

VIEWS: Final = ((0.4, 0.0), (0.55, -0.15))
"""Two views of each line, and only what both read alike is accepted: the least ink of a pixel that
is connected, and the pixels to the right per pixel up that the line is sheared by."""


class _Reading(NamedTuple):
    """What one view of a line gives."""

    pieces: Pieces
    candidates: Candidates
    paths: list[Path]  # the best first
    scale: float  # pixels of the view per pixel of the picture

    @property
    def text(self) -> str | None:
        """The likeliest digits."""
        return self.paths[0].text if self.paths else None

    @property
    def is_cut_off(self) -> bool:
        """Whether the border of the picture cuts off a digit."""
        height, width = self.pieces.ink.shape
        at = [segment.candidate for segment in self.paths[0].segments] if self.paths else []
        boxes = [self.pieces.box(self.candidates.first[c], self.candidates.last[c]) for c in at]
        return any(min(b[:2]) <= 0 or b[2] >= width or b[3] >= height for b in boxes)

    def digits(self, path: Path, policy: DecisionPolicy) -> tuple[NumberDigit, ...]:
        """Return the digits of one of its paths."""
        return tuple(self._digit(*segment, policy) for segment in path.segments)

    def _digit(self, digit: int, c: int, policy: DecisionPolicy) -> NumberDigit:
        pieces, candidates = self.pieces, self.candidates
        shares = np.exp(candidates.log_p[c])
        left, top, right, bottom = pieces.box(candidates.first[c], candidates.last[c])
        box = (left, top, right - left, bottom - top)
        others = [d for d in np.argsort(-shares[:10]).tolist() if d != digit]
        confidence = float(shares[digit])
        return NumberDigit(
            digit,
            confidence,
            tuple(max(0, round(side / self.scale)) for side in box),  # type: ignore[arg-type]
            policy.decide(confidence)[0],
            tuple((d, float(shares[d])) for d in others[:2]),
            candidates.inks[c],
        )


def read_number(
    ink: Floats,
    read: ReadInks,
    policy: DecisionPolicy,
    *,
    hints: Hints = NO_HINTS,
    risk: float | None = None,
    least_height: float = LEAST_HEIGHT,
) -> NumberReading:
    """Read the number that the ink of a field shows, and decide what to do with it.

    Args:
        ink: (H, W) float32, how much of each pixel is ink, 0 to 1.
        read: the classifier.
        policy: its thresholds for numbers.
        hints: what is known of the number.
        risk: tolerated share of wrong numbers among the accepted; None is the policy's own.
        least_height: in pixels; ink that is lower is no digit.

    >>> policy = DecisionPolicy(accept_threshold=None, risk=0.005, level=0.95)
    >>> read_number(np.zeros((40, 90), np.float32), lambda inks: inks[:, 0, :10], policy).reason
    'no_ink'
    """
    cleaned = clean_ink(ink, VIEWS[0][0])
    if cleaned is None:
        return _nothing("no_ink")
    main = _read_view(*cleaned, read, *VIEWS[0], hints.lengths)
    if main is None or main.pieces.height < least_height * main.scale:
        return _nothing("no_ink")
    if main.pieces.lines > 1:
        return _nothing("several_lines")
    # The other views cost as much again, so that they wait until they can matter.
    further = [_read_view(*cleaned, read, *view, hints.lengths) for view in VIEWS[1:]]
    views = [view for view in (main, *further) if view is not None]
    shares = _shares(views)
    texts = sorted(shares, key=lambda text: -shares[text])
    if not texts or not texts[0]:
        return _nothing("no_ink" if main.pieces.is_low else "not_a_number")
    if max(map(len, texts)) > MOST_DIGITS:
        return _nothing("not_a_number")
    text = next((one for one in texts if hints.holds(one)), texts[0])
    view, path = next((v, p) for v in views for p in v.paths if p.text == text)
    decision, reason = _decide(shares[text], policy, risk)
    is_safe = len(views) == len(VIEWS) and all(one.text == text for one in views)
    is_safe &= hints.holds(text) and not path.left_out and not main.is_cut_off
    others = [(one, shares[one]) for one in texts if one not in {text, ""}]
    return NumberReading(
        text,
        view.digits(path, policy),
        shares[text],
        "review" if decision == "accept" and not is_safe else decision,
        reason,
        tuple(other for other in others[:ALTERNATIVES] if other[1] >= LEAST_ALTERNATIVE),
        hints.check(text),
    )


def _nothing(reason: NumberReason) -> NumberReading:
    return NumberReading("", (), 0.0, "reject", reason)


def _decide(
    confidence: float, policy: DecisionPolicy, risk: float | None
) -> tuple[Decision, NumberReason | None]:
    decision, _ = policy.decide(confidence, risk=risk)
    return decision, "unreadable" if decision == "reject" else None


def _read_view(
    ink: Floats,
    scale: float,
    read: ReadInks,
    threshold: float,
    slant: float,
    lengths: tuple[int, int] | None,
) -> _Reading | None:
    line = find_line(_sheared(ink, slant), threshold)
    if line is None:
        return None
    cached = _cached(read)
    pieces = line.pieces()
    candidates = find_candidates(pieces, cached)
    cut = doubtful(pieces, candidates)
    if cut:
        pieces = line.pieces(cut)
        candidates = find_candidates(pieces, cached)
    paths = best_paths(pieces, candidates, lengths)
    return _Reading(pieces, candidates, paths, scale)


def _cached(read: ReadInks) -> ReadInks:
    """Let a classifier read each ink once."""
    known: dict[bytes, Floats] = {}

    def read_new(inks: Ink) -> Floats:
        keys = [ink.tobytes() for ink in inks]
        new = [i for i, key in enumerate(keys) if key not in known]
        if new:
            known.update(zip([keys[i] for i in new], read(inks[new]), strict=True))
        return np.stack([known[key] for key in keys])

    return read_new


def _sheared(ink: Floats, slant: float) -> Floats:
    """Shear a picture to the right, upwards from its middle row."""
    if not slant:
        return ink
    height, width = ink.shape
    room = round(abs(slant) * height / 2) + 1
    shear = (1, slant, -slant * height / 2 - room, 0, 1, 0)
    size = (width + 2 * room, height)
    image = Image.fromarray(ink).transform(
        size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR
    )
    return np.asarray(image)


def _shares(views: Sequence[_Reading]) -> dict[str, float]:
    """Return the probability of each number that was read, as the mean of the views."""
    shares: dict[str, float] = {}
    for view in views:
        if view.paths:
            scores = np.array([[path.score for path in view.paths]]) / TEMPERATURE
            for path, share in zip(view.paths, np.exp(log_softmax(scores))[0], strict=True):
                shares[path.text] = shares.get(path.text, 0.0) + float(share) / len(views)
    return {text: min(1.0, share) for text, share in shares.items()}
