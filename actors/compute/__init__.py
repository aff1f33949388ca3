"""Run the chunks of a split through the model."""
