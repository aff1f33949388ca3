"""Static embeddings: one vector for each token, whatever stands beside it."""
