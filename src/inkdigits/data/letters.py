"""Letters of many scripts that look written by hand: fonts' glyphs, thinned and drawn with a pen.

A glyph is bent, thinned to its skeleton and drawn again with a round pen of any width. Scripts,
like fonts, have a split: those that are held back are for reports. What fonts are installed decides
which scripts there are; Debian's fonts-noto-core has them all. Letters with the shape of a digit
are left out.
"""

# ruff: noqa: RUF001 - look-alikes from many alphabets are what this module is about
from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from inkdigits.data.fonts import Font, FontSplit
from inkdigits.data.pixels import Coverage, enlarge
from inkdigits.errors import DataError
from inkdigits.types import Floats, Mask, Rng

# Characters with the shape of a digit, printed or handwritten, once they are scaled to one size.
DIGIT_SHAPED = {
    0: "OoQDΟοΘθσΦφОоФфЮю°@()",
    1: "IliJjΙι`|!/\\-_'\",.;:∫",
    2: "Zz?Ζ",
    3: "ЗзЭэζξ",
    4: "Чч",
    5: "Ss$ς",
    6: "bGбδ∂",
    8: "B&ΒβВв",
    9: "gqд",
}
# First and last letter of each script.
SCRIPTS: dict[str, tuple[int, int]] = {
    "Latin": (0x41, 0x17F),
    "Greek": (0x391, 0x3C9),
    "Cyrillic": (0x410, 0x45F),
    "Armenian": (0x531, 0x586),
    "Hebrew": (0x5D0, 0x5EA),
    "Arabic": (0x621, 0x64A),
    "Syriac": (0x710, 0x72F),
    "Thaana": (0x780, 0x7A5),
    "NKo": (0x7CA, 0x7EA),
    "Devanagari": (0x904, 0x939),
    "Bengali": (0x985, 0x9B9),
    "Gurmukhi": (0xA05, 0xA39),
    "Gujarati": (0xA85, 0xAB9),
    "Oriya": (0xB05, 0xB39),
    "Tamil": (0xB85, 0xBB9),
    "Telugu": (0xC05, 0xC39),
    "Kannada": (0xC85, 0xCB9),
    "Malayalam": (0xD05, 0xD39),
    "Sinhala": (0xD85, 0xDC6),
    "Thai": (0xE01, 0xE2E),
    "Lao": (0xE81, 0xEAE),
    "Tibetan": (0xF40, 0xF6C),
    "Myanmar": (0x1000, 0x1021),
    "Georgian": (0x10D0, 0x10F0),
    "Ethiopic": (0x1200, 0x124D),
    "Cherokee": (0x13A0, 0x13F4),
    "Canadian Aboriginal": (0x1401, 0x1440),
    "Runic": (0x16A0, 0x16EA),
    "Khmer": (0x1780, 0x17A2),
    "Mongolian": (0x1820, 0x1842),
    "Balinese": (0x1B05, 0x1B33),
    "Ol Chiki": (0x1C5A, 0x1C77),
    "Glagolitic": (0x2C00, 0x2C5F),
    "Coptic": (0x2C80, 0x2CB1),
    "Tifinagh": (0x2D30, 0x2D65),
    "Vai": (0xA500, 0xA53B),
    "Javanese": (0xA984, 0xA9B2),
    "Osmanya": (0x10480, 0x1049D),
}
HELD_BACK = frozenset(
    (
        *("Bengali", "Cherokee", "Coptic", "Glagolitic", "Gurmukhi", "Lao", "Malayalam", "NKo"),
        *("Ol Chiki", "Osmanya", "Runic", "Syriac", "Thaana", "Tifinagh", "Vai"),
    )
)
# Found by reading six drawings of each letter with the model of 2026-11-26, and by eye.
_DIGIT_SHAPED_LETTERS = frozenset(
    "BDGIJOSZgijloqsz"  # Latin
    "ΒΖΘΙΟζιοςσ"  # Greek
    "ВЗОЧЭвзоцчэђѕіјџ"  # Cyrillic
    "ԶԿՀՁՅՆՎՏՕգդզծկձղճյշվցօ"  # Armenian
    "בגדוזטיךםןסףר"  # Hebrew
    "اطظهوىي"  # Arabic
    "ܕܖܙܝܦܨܪ"  # Syriac
    "ހވމގޚ"  # Thaana
    "ߊߋߔߗߛߞߣߤ"  # NKo
    "उङड"  # Devanagari
    "ਡਤਭ"  # Gurmukhi
    "ઈઉકખઙટડઢપબમયર"  # Gujarati
    "ଠ"  # Oriya
    "உ"  # Tamil
    "ఎఒక"  # Telugu
    "ಌಒತ"  # Kannada
    "ടഠ"  # Malayalam
    "ธรว"  # Thai
    "ຈຣລອຮ"  # Lao
    "ངཏདནཔཕབྷཙཞཟཤ"  # Tibetan
    "ခစဉဌဒရဝ"  # Myanmar
    "ვზკპტხჰ"  # Georgian
    "ሂሃሄረራሬ"  # Ethiopic
    "ᎦᎶᏃᏋᏎᏓᏕᏚᏭᏮ"  # Cherokee
    "ᐟᐠᐤ"  # Canadian Aboriginal
    "ᚽᚿᛁᛂᛇᛋᛌᛍᛒᛔᛙᛜᛧᛩ"  # Runic
    "ឌ"  # Khmer
    "ᠫᠶ"  # Mongolian
    "ᬉ"  # Balinese
    "ᱛᱧᱩᱪᱮ"  # Ol Chiki
    "ⰅⰋⰑⰓⰔⰗⰙⰵⱁⱄⱜ"  # Glagolitic
    "ⲂⲃⲊⲋⲌⲍⲒⲓⲜⲝⲞⲟ"  # Coptic
    "ⴰⴳⴺⵀⵊⵏⵑⵔⵚⵢ"  # Tifinagh
    "𐒀𐒃𐒆𐒇𐒉𐒊𐒍𐒑𐒒𐒖𐒗𐒘𐒛"  # Osmanya
)
_EXCLUDED = _DIGIT_SHAPED_LETTERS.union(*DIGIT_SHAPED.values())
# The glyph's height before thinning, in pixels; more takes longer and shows no more.
_GLYPH = 72
_PADDING = 12


def alphabet(script: str) -> str:
    """Return the letters of a script without those that have the shape of a digit.

    >>> alphabet("Georgian")[0]
    'ა'
    """
    first, last = SCRIPTS[script]
    letters = (chr(code) for code in range(first, last + 1))
    return "".join(
        c
        for c in letters
        # An accent makes no letter of what has a digit's shape without it.
        if unicodedata.category(c)[0] == "L" and unicodedata.normalize("NFD", c)[0] not in _EXCLUDED
    )


def scripts_of(split: FontSplit) -> tuple[str, ...]:
    """Return the scripts of a split; validation has those of train.

    >>> "Georgian" in scripts_of("train"), "Georgian" in scripts_of("held_back")
    (True, False)
    """
    return tuple(name for name in SCRIPTS if (name in HELD_BACK) == (split == "held_back"))


def write_letter(fonts: Sequence[Font], scripts: Sequence[str], rng: Rng) -> tuple[Coverage, str]:
    """Draw a letter of one of the scripts as if by hand, and say which one it is.

    Each script that has a font is as likely. A DataError says that none has one.

    >>> from inkdigits.data.fonts import find_fonts
    >>> write_letter(find_fonts(), ["Latin"], np.random.default_rng(0))[0].ndim
    2
    """
    choices = _choices(tuple(fonts), tuple(scripts))
    if not choices:
        raise DataError(f"none of the {len(fonts)} fonts has letters of {', '.join(scripts)}")
    for _ in range(50):
        able = choices[rng.integers(len(choices))]
        font, letters = able[rng.integers(len(able))]
        letter = letters[rng.integers(len(letters))]
        glyph = _glyph(letter, font)
        if glyph is not None:
            return _with_pen(skeleton(_bent(glyph, rng)), rng), letter
    raise DataError(f"in 50 tries none of the {len(fonts)} fonts drew a letter")


@cache
def _choices(fonts: tuple[Font, ...], scripts: tuple[str, ...]) -> list[list[tuple[Font, str]]]:
    """Return for each script the fonts that have half of its letters, with those letters."""
    found = []
    for script in scripts:
        letters = alphabet(script)
        able = [(font, "".join(c for c in letters if c in font.characters)) for font in fonts]
        able = [(font, drawable) for font, drawable in able if 2 * len(drawable) >= len(letters)]
        if able:
            found.append(able)
    return found


def _glyph(letter: str, font: Font) -> Floats | None:
    """Return the glyph, about ``_GLYPH`` pixels high, with a margin; None if it is empty."""
    face = ImageFont.truetype(str(font.path), _GLYPH)
    left, top, right, bottom = (round(v) for v in face.getbbox(letter))
    width, height = right - left, bottom - top
    if not 8 <= max(width, height) <= 3 * _GLYPH:
        return None
    image = Image.new("L", (width + 2 * _PADDING, height + 2 * _PADDING), 0)
    ImageDraw.Draw(image).text((_PADDING - left, _PADDING - top), letter, fill=255, font=face)
    glyph: Floats = np.asarray(image).astype(np.float32) / np.float32(255)
    return glyph if glyph.max() > 0.5 else None


def _bent(glyph: Floats, rng: Rng) -> Mask:
    """Bend, slant and turn a glyph as a hand does."""
    height, width = glyph.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    angle, slant = rng.normal(0, 0.07), rng.normal(0.05, 0.15)
    y, x = rows - height / 2, columns - width / 2
    shift_x, shift_y = (
        enlarge(rng.normal(0, 2.2, (4, 4)), (height, width), Image.Resampling.BICUBIC)
        for _ in range(2)
    )
    source_x = x * rng.uniform(0.9, 1.1) + slant * y + angle * y + width / 2 + shift_x
    source_y = y * rng.uniform(0.9, 1.1) - angle * x + height / 2 + shift_y
    bent: Floats = ndimage.map_coordinates(glyph, [source_y, source_x], order=1)
    mask: Mask = bent > 0.5
    return mask


def skeleton(mask: Mask) -> Mask:
    """Thin a mask (H, W) to lines of one pixel; its border must be empty.

    The method is T. Y. Zhang and C. Y. Suen's, "A fast parallel algorithm for thinning digital
    patterns", Communications of the ACM 27, 1984.

    >>> bar = np.zeros((9, 9), bool)
    >>> bar[2:7, 3:6] = True
    >>> np.flatnonzero(skeleton(bar).any(axis=0)).tolist()
    [4]
    """
    thin = mask.copy()
    while True:
        changed = False
        for second in (False, True):
            # The eight neighbours, clockwise from the one above.
            shifts = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]
            p = np.stack([np.roll(thin, (-dy, -dx), (0, 1)) for dy, dx in shifts])
            neighbours = p.sum(axis=0)
            turns = (~p & np.roll(p, -1, axis=0)).sum(axis=0)
            up, right, down, left = p[0], p[2], p[4], p[6]
            if second:
                ends = ~(up & right & left) & ~(up & down & left)
            else:
                ends = ~(up & right & down) & ~(right & down & left)
            removed = thin & (neighbours >= 2) & (neighbours <= 6) & (turns == 1) & ends
            changed = changed or bool(removed.any())
            thin = thin & ~removed
        if not changed:
            return thin


def _with_pen(lines: Mask, rng: Rng) -> Coverage:
    """Draw lines with a round pen, 0.7 to 4 times as large."""
    distance = ndimage.distance_transform_edt(~lines).astype(np.float32)
    factor = 0.7 * (4 / 0.7) ** rng.random()
    shape = (max(12, round(factor * lines.shape[0])), max(12, round(factor * lines.shape[1])))
    pen = _GLYPH * (rng.uniform(0.04, 0.12) if rng.random() < 0.8 else rng.uniform(0.02, 0.18))
    large = enlarge(distance, shape, Image.Resampling.BICUBIC)
    coverage: Coverage = np.clip((pen / 2 - large) * factor + 0.5, 0, 1)
    return coverage
