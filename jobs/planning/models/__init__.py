"""Models that are not yet in a folder on this machine: on an object store, or in memory."""
