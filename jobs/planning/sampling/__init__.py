"""Read some rows of the input, and infer from them what a task's columns and parameters are."""
