"""Compute one micro-batch with a model."""
