"""What each peer serves: base64 of a PNG in, a digit out, with Pillow, NumPy and the same network.

The environment variable WEIGHTS names the network's file: ONNX, or TorchScript if it ends in `.pt`.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable

import numpy as np
from PIL import Image


def prepare(content: bytes) -> np.ndarray:
    """Return (1, 1, 28, 28) float32: white background removed, cropped, centred, standardised."""
    image = Image.open(io.BytesIO(content))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    grey = np.asarray(image.convert("L"))
    ink = Image.fromarray(255 - grey if grey.mean() > 127 else grey)
    ink = ink.crop(ink.point(lambda value: 255 if value > 40 else 0).getbbox())
    scale = 20 / max(ink.size)
    size = max(1, round(ink.width * scale)), max(1, round(ink.height * scale))
    canvas = Image.new("L", (28, 28), 0)
    ink = ink.resize(size, Image.Resampling.LANCZOS)
    canvas.paste(ink, ((28 - ink.width) // 2, (28 - ink.height) // 2))
    standardised = (np.asarray(canvas, dtype=np.float32) / 255 - 0.1307) / 0.3081
    return standardised.astype(np.float32)[None, None]


def make_reader() -> Callable[[str], int]:
    """Return a function from base64 to a digit. The network is loaded with one thread."""
    weights = os.environ["WEIGHTS"]
    if weights.endswith(".pt"):
        import torch

        model = torch.jit.load(weights).eval()

        def read(image: str) -> int:
            with torch.inference_mode():
                return int(model(torch.from_numpy(prepare(base64.b64decode(image)))).argmax())

        return read
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        weights, session_options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda image: int(
        session.run(["logits"], {name: prepare(base64.b64decode(image))})[0].argmax()
    )
