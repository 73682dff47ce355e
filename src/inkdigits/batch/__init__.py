"""Very many pictures into one table."""
