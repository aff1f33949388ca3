"""How far a run is: its messages, its log, and how another process follows it."""
