"""Predictions to metrics and figures."""
