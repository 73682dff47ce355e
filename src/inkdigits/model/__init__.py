"""Ink to logits and features."""
