"""Rows that a job gets as a Python object, and how they become files."""
