"""What pipemill says beforehand, and what becomes of it."""
