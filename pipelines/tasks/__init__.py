"""One file for each task or family: columns, parameters, and how an answer becomes columns."""
