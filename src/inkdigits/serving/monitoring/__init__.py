"""Metrics, drift, traces and log lines."""
