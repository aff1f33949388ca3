"""Models as graphs that another library runs: exported once, and kept in a cache."""
