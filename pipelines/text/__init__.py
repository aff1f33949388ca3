"""From texts to token chunks."""
