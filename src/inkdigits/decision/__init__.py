"""Probabilities to accept, review or reject."""
