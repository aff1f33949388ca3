"""What is computed: one file per task, and the registry that finds a task by its name."""
