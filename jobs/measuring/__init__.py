"""Compute a few rows in this process, to time them or to compare their answers."""
