"""Sends pictures to a running service, and tells it what they really show.

inkdigits serve
python examples/feedback.py http://127.0.0.1:5000
"""

import sys

import numpy as np

from inkdigits import Client
from inkdigits.data.pictures.foreground import draw_digits

pictures, labels = draw_digits(20, np.random.default_rng(2))
with Client(sys.argv[1]) as client:
    client.check()
    wrong = 0
    for picture, label in zip(pictures, labels.tolist(), strict=True):
        prediction = client.predict(picture)
        client.feedback(prediction.id, label)
        if prediction.digit != label:
            wrong += 1
            print(f"{prediction.id}: read {prediction.digit}, is {label}")
print(f"{len(labels)} pictures, {wrong} read incorrectly; the history has all labels")
print("To export the labels: inkdigits history export labelled.csv --feedback given")
