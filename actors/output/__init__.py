"""Write parts and dead letters."""
