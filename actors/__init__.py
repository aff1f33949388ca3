"""What runs on a worker: load a model once, then expand, forward and regroup its splits."""
