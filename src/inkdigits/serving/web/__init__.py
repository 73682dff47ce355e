"""The page: draw or upload a digit, give feedback, and see what was read."""
