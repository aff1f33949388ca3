"""Input that is not files, and how it becomes files."""
