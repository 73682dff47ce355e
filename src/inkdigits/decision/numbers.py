"""From the ink of a field to a number and a decision: two networks have to agree.

One network reads the line as a whole, and finds where each digit is. The digits are cut out, and
the classifier reads those that touch no other. Both count for the confidence in a number. But
thresholds do not hold for other sources. So a number is accepted only if the classifier reads these
digits alike, and the line reads alike when it is sheared to either side. Numbers whose digits touch
are for review, or rejected where the views differ: at the same confidence more are wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from inkdigits.decision.ctc import (
    OTHER,
    SYMBOLS,
    Text,
    likeliest_texts,
    log_softmax,
    plain_text,
    text_scores,
)
from inkdigits.decision.hints import MOST_DIGITS, NO_HINTS, Hints
from inkdigits.decision.line import Line, clean_ink, find_line
from inkdigits.decision.policy import DecisionPolicy, NumberReason
from inkdigits.decision.prediction import NumberDigit, NumberReading
from inkdigits.decision.risk import AcceptThreshold
from inkdigits.decision.strip import Cut, Strip, cut_digits, sheared, strip_of
from inkdigits.ink.normalize import normalise
from inkdigits.ink.plain import Foreground
from inkdigits.types import Doubles, Floats, Ink, Mask

ReadInks: TypeAlias = Callable[[Ink], Floats]
"""A classifier: inks (N, 28, 28) → logits (N, 10), where no digit has the logit 0."""
ReadStrip: TypeAlias = Callable[[Floats], Floats]
"""What reads lines: ink (N, 1, 32, W), 0 to 1 → logits (N, W/2, 12) of ``ctc``'s classes."""

ALTERNATIVES, LEAST_ALTERNATIVE = 5, 0.001
"""How many other numbers are named, and the least probability of one."""
LEAST_HEIGHT = 7
"""Pixels; ink that is lower is dirt."""
LEAST_SHARE = 0.2
"""Of a region's height, likewise."""
THRESHOLD: Final = 0.4
"""The least ink of a pixel that is connected to its neighbours."""
VIEWS: Final = (0.0, 0.2, -0.2)
"""Pixels to the right per pixel up by which a line is sheared: as it is, and the other views."""
CLASSIFIER_WEIGHT = 0.6
"""How much the classifier counts beside the columns of the line, for digits that touch no other.

Of 800 numbers of the calibration part 0.35 to 0.7 read the same share exactly, within 0.5 points.
For digits that touch it is 0: each tenth costs a point of the touching numbers.
"""
OTHER_COST = 1.0
"""Nats by which something that is no digit is less likely than columns say: they learned from
lines with many letters."""
TEMPERATURE = 1.0
"""Divides the scores of texts, in nats. Fitted to numbers with digits of the calibration part, as
``benchmarks/number_reading.py --calibrate`` writes them: spaced, boxed and photographed. So was
NUMBER_POLICY, to 3,040 of each."""
_CHOICES: Final = (
    AcceptThreshold(0.95954, 0.006, 0.95, 0.778, 9_120, 7_097, 31),
    AcceptThreshold(0.80832, 0.01, 0.95, 0.878, 9_120, 8_005, 65),
    AcceptThreshold(0.5, 0.02, 0.95, 0.907, 9_120, 8_273, 100),
    AcceptThreshold(0.5, 0.05, 0.95, 0.907, 9_120, 8_273, 100),
)
NUMBER_POLICY: Final = DecisionPolicy(0.95954, 0.006, 0.95, _CHOICES)
"""At most 0.6 % of the accepted numbers are wrong: 31 of 7,097 were. The 95 % are weaker than they
would be for a risk that is stated beforehand, because 0.6 % was chosen with these counts."""

# Texts whose digits are cut out and read: at most so many, at most so many nats behind the first.
_TEXTS, _BEHIND = 5, 8.0
_NEAR = 2  # columns between the places of digits that are cut alike
_FOLLOWED = 12  # texts from column to column
_UNREAD = np.log(1e-3)  # for the classifier, of a digit that has no ink


class _Cuts(NamedTuple):
    """What is cut out at some places of a line."""

    places: tuple[int, ...]
    cuts: list[Cut | None]
    inks: list[Ink]  # (28, 28)
    log_p: Doubles  # (n, 11) what the classifier says of each

    @property
    def is_whole(self) -> Mask:
        """Whether each digit (n,) touches no other; one without ink of its own is not whole."""
        return np.array([cut is not None and cut.is_whole for cut in self.cuts], dtype=np.bool_)

    def are_at(self, places: tuple[int, ...]) -> bool:
        """Whether they are also those of other places, which differ little."""
        pairs = zip(self.places, places, strict=False)
        return len(places) == len(self.places) and all(abs(a - b) <= _NEAR for a, b in pairs)


class _Reading(NamedTuple):
    """One way to read a line."""

    as_text: Text
    score: float  # in nats, of both networks
    cut: _Cuts
    columns: Doubles  # (n, 12) what the line says of each

    @property
    def touches(self) -> bool:
        """Whether a digit touches another, or has no ink of its own."""
        return not self.cut.is_whole.all()


def read_number(
    ink: Floats,
    read_strip: ReadStrip,
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
        read_strip: the network that reads lines.
        read: the classifier.
        policy: the thresholds for numbers.
        hints: what is known of the number.
        risk: tolerated share of wrong numbers among the accepted; None is the policy's own.
        least_height: in pixels; ink that is lower is no digit.

    >>> policy = DecisionPolicy(accept_threshold=None, risk=0.005, level=0.95)
    >>> read_number(np.zeros((40, 90), np.float32), None, None, policy).reason
    'no_ink'
    """
    cleaned = clean_ink(ink, THRESHOLD)
    line = None if cleaned is None else find_line(cleaned[0], THRESHOLD)
    if cleaned is None or line is None or line.is_low or line.height < least_height * cleaned[1]:
        return _nothing("no_ink")
    if line.lines > 1:
        return _nothing("several_lines")
    strip = strip_of(line)
    views = np.stack([sheared(strip.ink, slant) for slant in VIEWS])[:, np.newaxis]
    columns = np.stack([log_softmax(one.astype(np.float64)) for one in read_strip(views)])
    found = _read_line(line, strip, columns, read, hints)
    shares = _shares(found)
    texts = sorted(shares, key=lambda text: -shares[text])
    if not texts or not texts[0] or len(texts[0]) > MOST_DIGITS:
        return _nothing("not_a_number")
    text = next((one for one in texts if hints.holds(one)), texts[0])
    best = max((one for one in found if one.as_text.digits == text), key=lambda one: one.score)
    is_alike = all(plain_text(one) == best.as_text.text == text for one in columns[1:])
    digits = _digits(best, policy, cleaned[1])
    is_safe = is_alike and hints.holds(text) and _is_whole(line, best)
    is_safe &= policy.decide(min(one.confidence for one in digits), risk=risk)[0] == "accept"
    decision, _ = policy.decide(shares[text], risk=risk)
    if best.touches and not is_alike:
        decision = "reject"
    elif decision == "accept" and not is_safe:
        decision = "review"
    others = [(one, shares[one]) for one in texts if one not in {text, ""}]
    return NumberReading(
        text,
        digits,
        shares[text],
        decision,
        "unreadable" if decision == "reject" else None,
        tuple(other for other in others[:ALTERNATIVES] if other[1] >= LEAST_ALTERNATIVE),
        hints.check(text),
    )


def _nothing(reason: NumberReason) -> NumberReading:
    return NumberReading("", (), 0.0, "reject", reason)


def _read_line(
    line: Line, strip: Strip, columns: Doubles, read: ReadInks, hints: Hints
) -> list[_Reading]:
    """Return the likeliest ways to read a line, as both networks see them."""
    fewest, most = hints.lengths or (0, MOST_DIGITS + 1)
    texts = likeliest_texts(columns[0], most, _FOLLOWED if hints.lengths is None else 4 * _FOLLOWED)
    fitting = [one for one in texts if fewest <= len(one.digits) <= most]
    close = [one for one in fitting if one.log_p > fitting[0].log_p - _BEHIND][:_TEXTS]
    cuts: list[_Cuts] = []
    found = []
    scores = text_scores(columns, [one.text for one in close]).mean(axis=0) if close else ()
    for one, score in zip(close, scores, strict=True):
        cut = next((known for known in cuts if known.are_at(one.places)), None)
        if cut is None:
            cut = _cut(line, strip, one.places, read)
            cuts.append(cut)
        classes = [SYMBOLS.index(symbol) for symbol in one.text]
        said = np.maximum(cut.log_p[np.arange(len(classes)), classes], _UNREAD)
        score += CLASSIFIER_WEIGHT * said[cut.is_whole].sum() - OTHER_COST * classes.count(OTHER)
        found.append(_Reading(one, score, cut, columns[0, list(one.places)]))
    return found


def _cut(line: Line, strip: Strip, places: tuple[int, ...], read: ReadInks) -> _Cuts:
    """Cut out the digits at some places, and let the classifier read them."""
    cuts = cut_digits(line, strip, [2 * place + 0.5 for place in places])
    empty = np.zeros((1, 1), np.float32)
    patches = [empty if cut is None else cut.patch for cut in cuts]
    inks = [normalise(Foreground.whole_picture(patch)) for patch in patches]
    if not inks:
        return _Cuts(places, cuts, inks, np.zeros((0, 11)))
    logits = read(np.stack(inks)).astype(np.float64)
    log_p = log_softmax(np.concatenate([logits, np.zeros((len(logits), 1))], axis=1))
    return _Cuts(places, cuts, inks, log_p)


def _shares(found: list[_Reading]) -> dict[str, float]:
    """Return the probability of each number that was read."""
    shares: dict[str, float] = {}
    if found:
        scores = np.array([[one.score for one in found]]) / TEMPERATURE
        for one, share in zip(found, np.exp(log_softmax(scores))[0], strict=True):
            digits = one.as_text.digits
            shares[digits] = min(1.0, shares.get(digits, 0.0) + float(share))
    return shares


def _is_whole(line: Line, reading: _Reading) -> bool:
    """Return whether no digit touches another or the border, and the classifier reads the same."""
    height, width = line.ink.shape
    boxes = [cut.box for cut in reading.cut.cuts if cut is not None]
    inside = all(
        min(left, top) > 0 and left + wide < width and top + high < height
        for left, top, wide, high in boxes
    )
    classified = "".join(SYMBOLS[i] for i in reading.cut.log_p.argmax(axis=1))
    return inside and not reading.touches and classified == reading.as_text.digits


def _digits(reading: _Reading, policy: DecisionPolicy, scale: float) -> tuple[NumberDigit, ...]:
    """Return the digits of a reading; ``scale`` is pixels of the line per pixel of the field."""
    digits = []
    for k, symbol in enumerate(reading.as_text.text):
        cut = reading.cut.cuts[k]
        if symbol == SYMBOLS[OTHER]:
            continue
        shares = np.exp((reading.cut.log_p if reading.cut.is_whole[k] else reading.columns)[k, :10])
        digit = int(symbol)
        others = [d for d in np.argsort(-shares).tolist() if d != digit]
        confidence = float(shares[digit])
        box = (0, 0, 0, 0) if cut is None else cut.box
        digits.append(
            NumberDigit(
                digit,
                confidence,
                tuple(max(0, round(side / scale)) for side in box),  # type: ignore[arg-type]
                policy.decide(confidence)[0],
                tuple((d, float(shares[d])) for d in others[:2]),
                reading.cut.inks[k],
            )
        )
    return tuple(digits)
