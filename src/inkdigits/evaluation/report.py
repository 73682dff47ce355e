"""A report of readings as a picture and as a page: Pillow and HTML, without matplotlib."""

from __future__ import annotations

import base64
from html import escape

import numpy as np
from PIL import Image, ImageDraw

from inkdigits.evaluation.readings import COLUMNS, Report
from inkdigits.ink.png import encode_png
from inkdigits.types import NO_DIGIT, NO_DIGIT_LABEL, Ink

_SCALE, _CAPTION, _COLUMNS = 3, 16, 8
_MOST = 80

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } caption { text-align: left; font-weight: 600 }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child { text-align: left } img { max-width: 100% } .wrong { background: #fde2cf }
"""


def misread_sheet(report: Report) -> bytes | None:
    r"""Return a PNG of the misread pictures, the most confident mistake first; None without any.

    Below each is its label, what was read, and the confidence.

    >>> import inkdigits
    >>> from inkdigits.data.labelled import Example, Labelled
    >>> from inkdigits.evaluation.readings import read_all, score
    >>> ink = np.zeros((28, 28), np.uint8)
    >>> blank = Labelled([Example("a.png", "own", ink, 7)])
    >>> misread_sheet(score(read_all(inkdigits.load(), blank)))[:4]
    b'\x89PNG'
    """
    readings, shown = report.readings, report.misread[:_MOST]
    if not len(shown):
        return None
    confidence = readings.probabilities.max(axis=1)
    captions = [
        f"{_name(readings.labels[i])} as {_name(readings.digits[i])} {100 * confidence[i]:.0f} %"
        for i in shown
    ]
    return contact_sheet(readings.inks[shown], captions)


def contact_sheet(inks: Ink, captions: list[str]) -> bytes:
    r"""Return a PNG of inks (N, 28, 28), N at least 1, black on white, each with its caption.

    >>> contact_sheet(np.zeros((3, 28, 28), np.uint8), ["a", "b", "c"])[:4]
    b'\x89PNG'
    """
    side = 28 * _SCALE + 12
    rows = -(-len(inks) // _COLUMNS)
    sheet = Image.new("L", (_COLUMNS * side, rows * (side + _CAPTION)), 255)
    draw = ImageDraw.Draw(sheet)
    for number, (ink, caption) in enumerate(zip(inks, captions, strict=True)):
        row, column = divmod(number, _COLUMNS)
        left, top = column * side + 6, row * (side + _CAPTION) + 6
        large = Image.fromarray(255 - ink).resize((28 * _SCALE, 28 * _SCALE), Image.Resampling.BOX)
        sheet.paste(large, (left, top))
        draw.text((left, top + 28 * _SCALE + 1), caption, fill=0)
    return encode_png(sheet)


def html_report(report: Report) -> str:
    """Return the report as one HTML page, which needs no other file and no network.

    >>> import inkdigits
    >>> from inkdigits.data.labelled import Example, Labelled
    >>> from inkdigits.evaluation.readings import read_all, score
    >>> ink = np.zeros((28, 28), np.uint8)
    >>> blank = Labelled([Example("a.png", "own", ink, -1)])
    >>> html_report(score(read_all(inkdigits.load(), blank)))[:15]
    '<!doctype html>'
    """
    readings = report.readings
    sheet = misread_sheet(report)
    picture = "<p>Nothing was misread.</p>"
    if sheet is not None:
        encoded = base64.b64encode(sheet).decode()
        shown = min(_MOST, len(report.misread))
        picture = (
            f"<h2>Misread: {len(report.misread):,} of {len(readings.labels):,}</h2>"
            f"<p>The {shown} most confident mistakes: label, reading, confidence.</p>"
            f'<img alt="Misread pictures" src="data:image/png;base64,{encoded}">'
        )
    summary = "" if report.digits is None else f"<pre>{escape(report.digits.summary())}</pre>"
    left_out = "".join(f"<li>{escape(n)}: {escape(why)}</li>" for n, why in readings.left_out)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Inkdigits: evaluation</title>'
        f"<style>{_STYLE}</style><h1>{len(readings.labels):,} labelled pictures</h1>"
        f"<p>Read by {escape(readings.model_version)}.</p>{_scores_table(report)}{summary}"
        f"{_confusion_table(report)}{picture}"
        + (f"<h2>Left out</h2><ul>{left_out}</ul>" if left_out else "")
        + "</html>\n"
    )


def _scores_table(report: Report) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}{''.join(f'<td>{cell}</td>' for cell in cells)}"
        for name, *cells in (one.cells() for one in report.scores)
    )
    head = "".join(f"<th scope=col>{name}" for name in COLUMNS)
    caption = "“At most” is the 95 % bound on the share of wrong readings among the accepted"
    return f"<table><caption>{caption}</caption><tr>{head}{rows}</table>"


def _confusion_table(report: Report) -> str:
    names = [*map(str, range(10)), NO_DIGIT_LABEL]
    counts = report.confusion()
    head = "".join(f"<th scope=col>{name}" for name in names)
    rows = ""
    for i in np.flatnonzero(counts.sum(axis=1)):
        cells = "".join(
            f"<td{' class=wrong' if n and i != j else ''}>{n:,}" for j, n in enumerate(counts[i])
        )
        rows += f"<tr><th scope=row>{names[i]}{cells}"
    return f"<table><caption>Label (row) and reading (column)</caption><tr><th>{head}{rows}</table>"


def _name(digit: int) -> str:
    return NO_DIGIT_LABEL if digit == NO_DIGIT else str(digit)
