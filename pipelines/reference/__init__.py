"""Compute with plain transformers, to compare."""
