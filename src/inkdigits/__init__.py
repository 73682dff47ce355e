"""Inkdigits reads handwritten digits and says how sure it is."""

from inkdigits.client import Client
from inkdigits.decision.prediction import NumberReading, Prediction
from inkdigits.ink.decode import Limits
from inkdigits.reader import DigitReader, load, preprocess

__all__ = ["Client", "DigitReader", "Limits", "NumberReading", "Prediction", "load", "preprocess"]
__version__ = "0.1.0"
