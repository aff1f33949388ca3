"""Find the columns of files, and their types."""
