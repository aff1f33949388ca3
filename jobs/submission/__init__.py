"""Jobs on a cluster that is elsewhere, through Ray's job API."""
