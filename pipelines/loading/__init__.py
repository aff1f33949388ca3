"""Load a model once, on a worker's device; find out before whether it fits."""
