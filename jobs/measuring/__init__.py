"""Compute a few rows in this process, to time or to compare them. Writes nothing."""
