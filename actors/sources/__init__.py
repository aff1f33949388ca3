"""Read input files: a module per format, and the registry that knows them by name."""
