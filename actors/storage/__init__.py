"""Read and write files on any fsspec filesystem."""
