"""What is started: the job, its plan, sources, sink and ledger, and the ways to start it."""
