"""A job's parameters as keywords of a pipeline's functions, and what is wrong with them."""
