"""Inkdigits reads handwritten digits and says how sure it is."""

from inkdigits.client import Client
from inkdigits.decoding import Limits
from inkdigits.inference import DigitReader, Prediction, load
from inkdigits.preprocessing import preprocess

__all__ = ["Client", "DigitReader", "Limits", "Prediction", "load", "preprocess"]
__version__ = "0.1.0"
