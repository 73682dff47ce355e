"""Serves a reader that sees some ink, and has a reference for it: its argument, as JSON."""

import json
import os
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from support.fakes import FakeReader

from inkdigits.decision.policy import DecisionPolicy
from inkdigits.model.artifact import ArtifactMetadata
from inkdigits.serving import gunicorn as server
from inkdigits.settings import Settings


class Inky(FakeReader):
    """Sees one ink after the other, whatever it is sent."""

    def __init__(self, inks: np.ndarray, provenance: dict[str, Any]) -> None:
        super().__init__()
        policy = DecisionPolicy(accept_threshold=0.5, risk=0.01, level=0.95)
        self.metadata = ArtifactMetadata("fake-1", "none", 1.0, policy, provenance=provenance)
        self._inks = list(inks)

    def predict(self, picture: Any, *, risk: float | None = None) -> Any:
        prediction = super().predict(picture, risk=risk)
        self._inks = self._inks[1:] + self._inks[:1]
        return replace(prediction, ink=self._inks[0])


def load(_settings: Settings) -> Inky:
    ink = np.zeros((1, 28, 28), np.uint8)
    ink[0, 4:24, 13:16] = 255
    reader = Inky(ink, {"drift_reference": json.loads(sys.argv[1])})
    reader.model_version = f"fake-{os.getpid()}"
    return reader


if __name__ == "__main__":
    server.serve(Settings.from_env(), load)
