"""How well labelled pictures were read, as a table, as JSON, as a picture and as a page.

Pillow and HTML, without matplotlib and PyTorch.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from inkdigits.calibration.intervals import LEVEL, Estimate, wilson_interval
from inkdigits.decision.risk import clopper_pearson_upper
from inkdigits.evaluation.metrics import Evaluation, evaluate
from inkdigits.evaluation.readings import Readings
from inkdigits.ink.png import encode_png
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL, Doubles, Ink, Json, Labels, Mask

_COLUMNS: Final = (
    *("", "pictures", "right", "accuracy", "95 % interval", "accepted", "wrong", "at most"),
)
_SCALE, _CAPTION = 3, 16
_MOST = 80
_NAMES = (*map(str, range(10)), NO_DIGIT_LABEL)  # the last by NO_DIGIT, which is -1, too

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600 }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child { text-align: left } img { max-width: 100% } .wrong { background: #fde2cf }
"""


@dataclass(frozen=True, slots=True)
class Scores:
    """How some pictures were read."""

    name: str
    n: int
    n_right: int
    accuracy: Estimate  # 0 to 1, with its 95 % Wilson interval
    n_accepted: int
    n_wrong: int  # of the accepted
    # Share of the accepted that is wrong, 0 to 1, with its 95 % Wilson interval, and the one-sided
    # 95 % upper bound (Clopper-Pearson) that a stated risk is compared with; None without accepted.
    wrong_of_accepted: Estimate | None
    wrong_at_most: float | None

    @property
    def coverage(self) -> float:
        """The share that is accepted, 0 to 1."""
        return self.n_accepted / self.n

    @classmethod
    def of(cls, name: str, readings: Readings, members: Mask) -> Scores:
        """Score the pictures of a group."""
        n, right = int(members.sum()), int(readings.right[members].sum())
        accepted = int(readings.accepted[members].sum())
        wrong = int(readings.wrong_accepted[members].sum())
        share, bound = None, None
        if accepted:
            share = Estimate(wrong / accepted, *wilson_interval(wrong, accepted))
            bound = clopper_pearson_upper(wrong, accepted)
        accuracy = Estimate(right / n, *wilson_interval(right, n))
        return cls(name, n, right, accuracy, accepted, wrong, share, bound)

    def cells(self) -> tuple[str, ...]:
        """Return the values of ``COLUMNS`` as text."""
        return (
            self.name,
            f"{self.n:,}",
            f"{self.n_right:,}",
            f"{100 * self.accuracy.value:.2f} %",
            f"{100 * self.accuracy.low:.2f} to {100 * self.accuracy.high:.2f} %",
            f"{100 * self.coverage:.2f} %",
            f"{self.n_wrong:,}",
            "" if self.wrong_at_most is None else f"{100 * self.wrong_at_most:.2f} %",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The scores of labelled pictures: all, by label, and by source where there are several."""

    readings: Readings
    scores: Sequence[Scores]  # of all first
    digits: Evaluation | None  # of the pictures with a digit: ECE, NLL, Brier, confusion

    @property
    def misread(self) -> npt.NDArray[np.int64]:
        """Indices of what was read wrong, the most confident mistake first."""
        wrong = np.flatnonzero(~self.readings.right)
        confidence = self.readings.probabilities[wrong].max(axis=1)
        return wrong[np.argsort(-confidence, kind="stable")]

    def confusion(self) -> npt.NDArray[np.int64]:
        """Return (11, 11) counts, row = label, column = what was read; the last is no digit.

        What is labelled as no digit counts as read so if it was rejected.
        """
        read = np.where(
            (self.readings.labels == NO_DIGIT) & self.readings.rejected,
            NO_DIGIT,
            self.readings.digits,
        )
        counts = np.zeros((11, 11), np.int64)
        np.add.at(counts, (self.readings.labels % 11, read % 11), 1)
        return counts

    def to_dict(self) -> Json:
        """Return the report in lists, numbers and dictionaries that ``json.dumps`` takes."""
        readings = self.readings
        return {
            "model_version": readings.model_version,
            "level": LEVEL,
            "scores": [{**asdict(one), "coverage": one.coverage} for one in self.scores],
            "digits": None if self.digits is None else self.digits.to_dict(),
            "confusion": self.confusion().tolist(),
            "misread": [
                {
                    "name": readings.examples[i].name,
                    "label": int(readings.labels[i]),
                    "digit": int(readings.digits[i]),
                    "confidence": float(readings.probabilities[i].max()),
                    "accepted": bool(readings.accepted[i]),
                }
                for i in self.misread
            ],
            "left_out": [list(one) for one in readings.left_out],
            "seconds_per_picture": readings.seconds_per_picture,
        }

    def table(self) -> str:
        """Return the scores as a table for a terminal."""
        return aligned([_COLUMNS, *(one.cells() for one in self.scores)])

    def sheet(self) -> bytes | None:
        """Return a PNG of the misread pictures, the most confident mistake first; None without.

        Below each is its label, what was read, and the confidence.
        """
        of, shown = self.readings, self.misread[:_MOST]
        confidence = of.probabilities[shown].max(axis=1)
        return misread_sheet(of.inks[shown], of.labels[shown], of.digits[shown], confidence)

    def html(self) -> str:
        """Return the report as one HTML page, which needs no other file and no network."""
        readings, sheet = self.readings, self.sheet()
        picture = "<p>Nothing was misread.</p>"
        if sheet is not None:
            encoded = base64.b64encode(sheet).decode()
            shown = min(_MOST, len(self.misread))
            picture = (
                f"<h2>Misread: {len(self.misread):,} of {len(readings.labels):,}</h2>"
                f"<p>The {shown} most confident mistakes: label, reading, confidence.</p>"
                f'<img alt="Misread pictures" src="data:image/png;base64,{encoded}">'
            )
        summary = "" if self.digits is None else f"<pre>{escape(self.digits.summary())}</pre>"
        left_out = "".join(f"<li>{escape(n)}: {escape(why)}</li>" for n, why in readings.left_out)
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Inkdigits: evaluation'
            f"</title><style>{_STYLE}</style><h1>{len(readings.labels):,} labelled pictures</h1>"
            f"<p>Read by {escape(readings.model_version)}.</p>{self._scores_table()}{summary}"
            f"{self._confusion_table()}{picture}"
            + (f"<h2>Left out</h2><ul>{left_out}</ul>" if left_out else "")
            + "</html>\n"
        )

    def _scores_table(self) -> str:
        rows = "".join(
            f"<tr><th scope=row>{escape(name)}{''.join(f'<td>{cell}</td>' for cell in cells)}"
            for name, *cells in (one.cells() for one in self.scores)
        )
        head = "".join(f"<th scope=col>{name}" for name in _COLUMNS)
        caption = "“At most” is the 95 % bound on the share of wrong readings among the accepted"
        return f"<table><caption>{caption}</caption><tr>{head}{rows}</table>"

    def _confusion_table(self) -> str:
        counts = self.confusion()
        head = "".join(f"<th scope=col>{name}" for name in _NAMES)
        rows = ""
        for i in np.flatnonzero(counts.sum(axis=1)):
            cells = "".join(
                f"<td{' class=wrong' if n and i != j else ''}>{n:,}"
                for j, n in enumerate(counts[i])
            )
            rows += f"<tr><th scope=row>{_NAMES[i]}{cells}"
        caption = "Label (row) and reading (column)"
        return f"<table><caption>{caption}</caption><tr><th>{head}{rows}</table>"


def score(readings: Readings) -> Report:
    """Return the report of some readings.

    >>> import inkdigits
    >>> from inkdigits.data.labelled import Example, Labelled
    >>> from inkdigits.evaluation.readings import read_all
    >>> blank = Labelled([Example("a.png", "own", np.zeros((28, 28), np.uint8), NO_DIGIT)])
    >>> score(read_all(inkdigits.load(), blank)).scores[0].n_right
    1
    """
    everything = np.ones(len(readings.labels), dtype=bool)
    groups = [("all", everything), *readings.groups()]
    with_digit = readings.labels != NO_DIGIT
    digits = None
    if with_digit.any():
        shares, labels = readings.probabilities[with_digit], readings.labels[with_digit]
        # All digits are as likely where nothing was read, and that is right for none of them.
        blank = np.flatnonzero(readings.digits[with_digit] == NO_DIGIT)
        shares[blank, labels[blank]] -= 1e-6
        digits = evaluate(shares, labels)
    return Report(readings, [Scores.of(name, readings, of) for name, of in groups], digits)


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows of text as a table, the first columns to the left and the others to the right.

    >>> print(aligned([("", "n"), ("all", "12")]))
          n
    all  12
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number >= left else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def misread_sheet(inks: Ink, labels: Labels, digits: Labels, confidence: Doubles) -> bytes | None:
    """Return a PNG of misread inks (N, 28, 28), each with label, reading and confidence.

    None is returned without any. Labels, digits read and confidences are (N,).

    >>> misread_sheet(np.zeros((0, 28, 28), np.uint8), *np.zeros((2, 0), int), np.zeros(0))
    """
    captions = [
        f"{_NAMES[label]} as {_NAMES[digit]} {100 * share:.0f} %"
        for label, digit, share in zip(labels, digits, confidence, strict=True)
    ]
    return contact_sheet(inks, captions) if captions else None


def contact_sheet(inks: Ink, captions: Sequence[str] = (), per_row: int = 8) -> bytes:
    r"""Return a PNG of inks (N, 28, 28), N at least 1, black on white, in rows, with captions.

    >>> contact_sheet(np.zeros((3, 28, 28), np.uint8), ["a", "b", "c"])[:4]
    b'\x89PNG'
    """
    side, below = 28 * _SCALE + 12, _CAPTION if captions else 0
    rows = -(-len(inks) // per_row)
    sheet = Image.new("L", (per_row * side, rows * (side + below)), 255)
    draw = ImageDraw.Draw(sheet)
    for number, ink in enumerate(inks):
        row, column = divmod(number, per_row)
        left, top = column * side + 6, row * (side + below) + 6
        large = Image.fromarray(255 - ink).resize((28 * _SCALE, 28 * _SCALE), Image.Resampling.BOX)
        sheet.paste(large, (left, top))
        if captions:
            draw.text((left, top + 28 * _SCALE + 1), captions[number], fill=0)
    return encode_png(sheet)
