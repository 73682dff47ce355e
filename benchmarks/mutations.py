"""Pictures and bodies that nobody should send, made from a seed.

A case is a valid picture in a valid body, changed by some mutations: bits flipped, bytes removed,
repeated or replaced, numbers made extreme, the end cut off, two pictures joined. The checksums of
most PNGs are corrected afterwards, because a decoder stops at a wrong one.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, -0.0, 0.5, 2**70, "", "x", [], {}, [[]], [None], {"a": []}),
    *("\ud800", "\x00", "data:", "data:image/png;base64,", "data:,x", "💥" * 50),
)


@dataclass(frozen=True)
class Case:
    """One request. Its kind is raw, json, form, tensors or binary."""

    kind: str
    path: str
    headers: dict[str, str]
    body: bytes


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yield so many cases of a seed. Each depends only on the seed and its number."""
    pictures = seeds()
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")

        def picture(chance: random.Random = chance) -> bytes:
            return mutated(chance, chance.choice(pictures), chance.choice(pictures))

        case = chance.choices(_MAKERS, weights=(6, 8, 3, 3, 3))[0](chance, picture)
        yield replace(case, body=mutated(chance, case.body)) if chance.random() < 0.1 else case


def seeds() -> list[bytes]:
    """Return valid pictures: all formats, several modes and sizes, one frame and more."""
    found, exif = list[bytes](), Image.Exif()
    exif[0x0112] = 6
    for size in ((28, 28), (57, 41), (280, 280)):
        grey = Image.new("L", size, 255)
        draw = ImageDraw.Draw(grey)
        x, y = size[0] / 28, size[1] / 28
        draw.line([(8 * x, 6 * y), (19 * x, 6 * y), (12 * x, 22 * y)], fill=0, width=int(2.5 * x))
        clear = Image.merge("LA", (Image.new("L", size), grey.point(lambda v: 255 - v)))
        modes = {mode: grey.convert(mode) for mode in ("L", "RGB", "1", "CMYK")}
        modes |= {"P": grey.convert("RGB").quantize(16), "LA": clear}
        modes["I;16"] = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        for name, image in modes.items():
            for form in FORMATS if image is not clear else ("PNG", "WEBP", "TIFF"):
                with suppress(OSError, ValueError, KeyError):  # The format has no such mode.
                    found.append(_encoded(image, form))
            if name == "LA":
                found.append(_encoded(image.convert("RGBA"), "PNG"))
            if name == "RGB":
                found.append(_encoded(image, "JPEG", progressive=True, exif=exif, quality=40))
                found.append(_encoded(image, "TIFF", compression="tiff_lzw"))
                found.append(_encoded(image, "PNG", interlace=1))
                for form in ("GIF", "TIFF", "WEBP", "PNG"):
                    more = {"save_all": True, "append_images": [image.rotate(90)] * 3}
                    found.append(_encoded(image, form, **more))
    return found


def largest(pixels: int) -> Iterator[tuple[str, Case]]:
    """Yield valid pictures of so many pixels: all formats and modes, each also on its side."""
    side, sideways = int(pixels**0.5), Image.Exif()
    sideways[0x0112] = 6
    grey = Image.new("L", (side, side), 230)
    grey.paste(25, (side // 4, side // 3, side // 2, side // 2))
    clear = grey.copy()
    clear.putalpha(grey)
    modes = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "F", "I", "I;16")
    for mode, form, exif in product(modes, FORMATS, (None, sideways)):
        with suppress(OSError, ValueError, KeyError):  # The format has no such mode.
            image = (clear if mode in ("LA", "RGBA") else grey).convert(mode)
            # A WebP has a smaller limit.
            image = image.reduce(2) if form == "WEBP" else image
            content = _encoded(image, form, **({"exif": exif} if exif else {}))
            headers = {"Content-Type": "application/octet-stream"}
            yield f"{mode} {form} {exif is None}", Case("raw", "/predict", headers, content)


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def mutated(random: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Return data with some mutations, sometimes none."""
    content = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 2, 3, 8, 30))):
        if not content:
            break
        _mutate(random, content, other)
    if content.startswith(b"\x89PNG") and random.random() < 0.6:
        return _with_right_checksums(bytes(content))
    return bytes(content)


def _mutate(random: random.Random, content: bytearray, other: bytes) -> None:
    # Headers are short and decide most, so half of the mutations are in the first hundred bytes.
    end = min(len(content), 100) if random.random() < 0.5 else len(content)
    at = random.randrange(end)
    length = min(random.choice((1, 2, 4, 16, 64, 1024)), len(content) - at)
    value, size = random.choice(EXTREMES), random.choice((1, 2, 4))
    number = (value % 256**size).to_bytes(size, random.choice(("big", "little")))
    flipped = bytes([content[at] ^ 1 << random.randrange(8)])
    some, end, rest = bytes(content[at : at + length]), at + length, len(content)
    joined = other[random.randrange(len(other)) if other else 0 :]
    # What is replaced, and what by.
    start, stop, new = random.choice(
        [(at, at + 1, flipped), (at, at + size, number), (at, end, b""), (at, at, some),
         (at, end, random.randbytes(length)), (at, rest, b""), (at, rest, joined),
         (rest, rest, random.randbytes(length))]
    )  # fmt: skip
    content[start:stop] = new


def _with_right_checksums(png: bytes) -> bytes:
    """Return a PNG with the checksums that its chunks should have."""
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        end = at + 8 + length
        if end + 4 > len(png):
            break
        out += png[at:end] + struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(out + png[at:])


Picture = Callable[[], bytes]


def _path(random: random.Random) -> str:
    path = random.choice(("/predict", "/predict", "/predict", "/read"))
    if random.random() < 0.85:
        return path
    risks = ("risk=0.01", "risk=nan", "risk=1e-400", "risk=")
    options = ("ink=true", "ink=1", "record=false", "length=1-9", "min=-1", "check=luhn", *risks)
    return path + "?" + "&".join(random.sample(options, random.randint(1, 3)))


def _raw(random: random.Random, picture: Picture) -> Case:
    kinds = ("image/png", "image/x", "image/", "application/octet-stream", "text/plain")
    return Case("raw", _path(random), {"Content-Type": random.choice(kinds)}, picture())


def _text(random: random.Random, data: bytes) -> str:
    text = random.choice((base64.b64encode, base64.urlsafe_b64encode))(data).decode()
    if random.random() < 0.2:
        text = f"data:image/{random.choice(('png', '*', 'svg+xml', ''))};base64,{text}"
    if random.random() < 0.3:
        text = mutated(random, text.encode()).decode("latin-1")
    return text


def _json(random: random.Random, picture: Picture) -> Case:
    document: Any = {"image": _text(random, picture())}
    if random.random() < 0.3:
        texts = [_text(random, picture()) for _ in range(random.choice((1, 2, 5, 65)))]
        document = {"images": [*texts[1:], random.choice((*ODD_VALUES, *texts[:1] * 60))]}
    if random.random() < 0.1:
        document["explain"] = random.choice((True, *ODD_VALUES))
    for key in ("image", "images", "risk", "explain", "length", "regions", "x"):
        if random.random() < 0.06:
            document[key] = random.choice(ODD_VALUES)
    if random.random() < 0.02:
        document = random.choice((*ODD_VALUES, float("nan")))
    body = b"[" * 100_000 if random.random() < 0.03 else json.dumps(document).encode()
    media = random.choice(("json", "json; charset=utf-16", "x+json"))
    return Case("json", _path(random), {"Content-Type": f"application/{media}"}, body)


def _form(random: random.Random, picture: Picture) -> Case:
    boundary = random.choice(("x", "----browser", "a" * 70))
    parts = []
    for _ in range(random.choice((1, 1, 1, 2, 20))):
        name = random.choice(("image", "image", "image", "images", ""))
        head = f'Content-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'
        parts.append(f"--{boundary}\r\n{head}".encode() + picture() + b"\r\n")
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    if random.random() < 0.3:
        body = mutated(random, body)
    said = boundary if random.random() < 0.95 else "other"
    headers = {"Content-Type": f"multipart/form-data; boundary={said}"}
    return Case("form", _path(random), headers, body)


def _packed(random: random.Random, case: Case) -> Case:
    """Return the case, perhaps compressed, perhaps damaged after that."""
    if random.random() < 0.7:
        return case
    # gzip's header has the time, which would make the case differ from second to second.
    pack = {"gzip": partial(gzip.compress, mtime=0), "deflate": zlib.compress}
    name = random.choice(tuple(pack))
    body = pack[name](case.body)
    if random.random() < 0.4:
        body = mutated(random, body)
    return Case(case.kind, case.path, {**case.headers, "Content-Encoding": name}, body)


def _tensor(random: random.Random, picture: Picture) -> tuple[str, dict[str, Any], bytes]:
    """Return a model's name, its input without data, and the data as bytes."""
    if random.random() < 0.5:
        count = random.choice((1, 1, 2, 70))
        data = np.full((count, 784), -0.42, np.float32).tobytes()
        shape = [count, 1, 28, 28]
        return "mnist", {"name": "ink", "datatype": "FP32", "shape": shape}, data
    found = [picture() for _ in range(random.choice((1, 1, 3)))]
    data = b"".join(struct.pack("<I", len(one)) + one for one in found)
    return "inkdigits", {"name": "picture", "datatype": "BYTES", "shape": [len(found)]}, data


def _described(random: random.Random, tensor: dict[str, Any]) -> dict[str, Any]:
    for key in ("name", "datatype", "shape", "data", "parameters"):
        if random.random() < 0.05:
            tensor[key] = random.choice((*ODD_VALUES, [-1], [10**12], "INT8"))
    document: dict[str, Any] = {"inputs": [tensor]}
    for key in ("id", "inputs", "outputs", "parameters"):
        if random.random() < 0.04:
            document[key] = random.choice((*ODD_VALUES, [{"name": "digit"}], [{"name": 1}]))
    return document


def _tensors(random: random.Random, picture: Picture) -> Case:
    model, tensor, data = _tensor(random, picture)
    if model == "mnist":
        values: list[Any] = np.frombuffer(data, np.float32).tolist()
        if random.random() < 0.3:
            values[0] = random.choice((*ODD_VALUES, float("nan"), float("inf"), 1e39))
    else:
        values = [_text(random, picture()) for _ in tensor["shape"]]
    body = json.dumps(_described(random, {**tensor, "data": values})).encode()
    headers = {"Content-Type": "application/json"}
    return _packed(random, Case("tensors", f"/v2/models/{model}/infer", headers, body))


def _binary(random: random.Random, picture: Picture) -> Case:
    model, tensor, data = _tensor(random, picture)
    size = len(data) if random.random() < 0.8 else random.choice(EXTREMES)
    tensor["parameters"] = {"binary_data_size": size}
    document = _described(random, tensor)
    if random.random() < 0.5:
        document.setdefault("parameters", {"binary_data_output": random.choice((True, False))})
    head = json.dumps(document).encode()
    if random.random() < 0.3:
        data = mutated(random, data)
    length = str(len(head)) if random.random() < 0.85 else random.choice(("0", "-1", "x", "9" * 30))
    headers = {"Content-Type": "application/octet-stream"}
    headers["Inference-Header-Content-Length"] = length
    return _packed(random, Case("binary", f"/v2/models/{model}/infer", headers, head + data))


_MAKERS = (_raw, _json, _form, _tensors, _binary)
