"""Layers of a model on a CPU, by products of oneDNN that torch uses for compiled models only."""
