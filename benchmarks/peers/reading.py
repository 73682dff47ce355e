"""What every peer serves: base64 in, digit out, by one of three readers.

``READER`` names it: "onnxruntime" and "torch" are a plain preprocessing with the network of our
artifact, as people write it; "inkdigits" is our own DigitReader. ``WEIGHTS`` is the file.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable

import numpy as np
from plain import prepare

ReadMany = Callable[[list[str]], list[int]]


def make_reader() -> Callable[[str], int]:
    """Reads one picture, by the reader that the environment asks for."""
    read_many = make_batch_reader()
    return lambda image: read_many([image])[0]


def make_batch_reader() -> ReadMany:
    """The same for several in one pass through the network."""
    kinds = {"onnxruntime": with_onnxruntime, "torch": with_torch, "inkdigits": with_inkdigits}
    return kinds[os.environ["READER"]](os.environ["WEIGHTS"])


def with_onnxruntime(weights: str) -> ReadMany:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # The default, all cores for each request, is slower as soon as two requests are there.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def read_many(images: list[str]) -> list[int]:
        (logits,) = session.run(["logits"], {name: batch(images)})
        return logits.argmax(1).tolist()

    return read_many


def with_torch(weights: str) -> ReadMany:
    import torch

    model = torch.jit.load(weights).eval()

    def read_many(images: list[str]) -> list[int]:
        with torch.inference_mode():
            return model(torch.from_numpy(batch(images))).argmax(1).tolist()

    return read_many


def with_inkdigits(weights: str) -> ReadMany:
    import inkdigits

    reader = inkdigits.load(weights)

    def read_many(images: list[str]) -> list[int]:
        found = reader.predict_batch([base64.b64decode(image) for image in images])
        return [-1 if one.digit is None else one.digit for one in found]

    return read_many


def batch(images: list[str]) -> np.ndarray:
    """(N, 1, 28, 28) float32."""
    return np.stack([prepare(base64.b64decode(image)) for image in images])[:, None]
