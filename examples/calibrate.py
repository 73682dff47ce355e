"""Measures the shipped model on pictures of your own, and calibrates it to them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import inkdigits
from inkdigits.data.pictures.foreground import draw_digits

# Your pictures, in folders named by what they show. Here they are drawn by code.
own = Path("own")
pictures, labels = draw_digits(300, np.random.default_rng(1))
for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
    path = own / str(label) / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)

command = [sys.executable, "-m", "inkdigits"]
subprocess.run([*command, "evaluate", "--data", own], check=True)
calibrate = ["calibrate", "--data", own, "--risk", "0.02", "--out", "models/own"]
subprocess.run([*command, *calibrate], check=True)

for name in (None, "models/own"):
    reader = inkdigits.load(name)
    readings = reader.predict_batch([path.read_bytes() for path in sorted(own.rglob("*.png"))])
    accepted = sum(reading.decision == "accept" for reading in readings)
    print(f"{name or 'shipped'}: {accepted} of {len(readings)} accepted")
