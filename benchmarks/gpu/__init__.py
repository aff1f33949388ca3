"""Measure texts on a GPU: `python -m benchmarks.gpu`."""
