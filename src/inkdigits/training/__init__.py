"""Data to a verified artifact."""
