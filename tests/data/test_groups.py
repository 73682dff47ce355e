import numpy as np
import torch

from inkdigits.data.groups import calibration_groups
from inkdigits.data.hands import Hands
from inkdigits.data.mnist import Digits
from inkdigits.data.synthesis import Material


def test_groups_are_of_clerks_of_pupils_and_of_digits_that_look_otherwise(digits):
    inks, labels = (torch.from_numpy(of[:60]) for of in digits)
    some = Digits(inks, labels, writers=torch.arange(60) % 3 * 1500)
    hands = Hands(strokes=((np.array([[5.0, 0.0], [5.0, 9.0]]),),), stroke_labels=np.array([1]))
    clean, groups = calibration_groups(Material(some, hands), seed=0, n=40)
    assert len(clean) == 60
    assert list(groups) == [
        *("census clerks", "school pupils", "mildly corrupted", "drawn", "photographed"),
        "other hands",
    ]
    assert [len(groups[name]) for name in ("census clerks", "school pupils")] == [40, 20]
    assert set(groups["other hands"].labels.tolist()) == {1}
    assert all(bool(of.inks.flatten(1).any(1).all()) for of in groups.values())
    again = calibration_groups(Material(some, hands), 0, 40)[1]
    assert all(of.certain.any() for of in groups.values())
    assert again["drawn"].digest() == groups["drawn"].digest()
