"""Parse records: CSV, JSON, tar."""
