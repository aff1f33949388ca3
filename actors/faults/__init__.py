"""Handle rows that raise, run out of memory, or kill the process."""
