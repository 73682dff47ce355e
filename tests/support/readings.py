"""Logits and probabilities with labels, drawn at random."""

import numpy as np


def noisy_logits(n: int = 2000, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose best temperature is near ``scale``: labels are drawn from their softmax."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (n, 10))
    return logits * scale, (logits + rng.gumbel(size=(n, 10))).argmax(axis=1)


def random_readings(n: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that have nothing to do with them."""
    rng = np.random.default_rng(0)
    exponentials = np.exp(rng.normal(0, 3, (n, 10)))
    return exponentials / exponentials.sum(axis=1, keepdims=True), rng.integers(10, size=n)
