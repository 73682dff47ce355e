"""The page: draw or upload a digit, say whether it was read right, look back. A Flask blueprint."""
