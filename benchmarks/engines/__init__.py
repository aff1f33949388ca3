"""Each engine beside sentence-transformers."""
