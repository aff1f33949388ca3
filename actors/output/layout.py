"""Where everything lies in an output: parts at the top, pipemill's own files in one folder."""

from __future__ import annotations

# Readers of datasets leave out names that begin with an underscore.
STATE = "_pipemill"
DEAD_LETTERS = f"{STATE}/dead-letter"
JOB = f"{STATE}/job.json"
PLAN = f"{STATE}/plan.parquet"
STORED_INPUT = f"{STATE}/input"
LEASE = f"{STATE}/lease"
ATTEMPTS = f"{STATE}/attempts"
REPORT = f"{STATE}/report.html"
