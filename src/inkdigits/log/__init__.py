"""The log of predictions and feedback."""
