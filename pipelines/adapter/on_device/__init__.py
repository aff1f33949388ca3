"""Prepare pictures and recordings on the device of the model, where that is faster."""
