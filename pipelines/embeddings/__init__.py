"""From token vectors to embeddings: poolings, sentence-transformers' folders, static ones."""
