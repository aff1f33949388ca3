"""Images on their way to the model: as levels of a byte, not as numbers."""
