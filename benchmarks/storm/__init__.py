"""A storm of kills over a long run."""
