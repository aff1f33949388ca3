"""From YAML, flags and keywords to a job."""
