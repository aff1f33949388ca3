"""The layout of an output: parts at the top, all other files of pipemill in one folder."""

from __future__ import annotations

# Readers of datasets skip names that start with an underscore.
STATE = "_pipemill"
DEAD_LETTERS = f"{STATE}/dead-letter"
JOB = f"{STATE}/job.json"
PLAN = f"{STATE}/plan.parquet"
FOOTERS = f"{STATE}/footers.parquet"
STORED_INPUT = f"{STATE}/input"
STORED_MODEL = f"{STATE}/model"
LEASE = f"{STATE}/lease"
LOG = f"{STATE}/log"
ATTEMPTS = f"{STATE}/attempts"
REPORT = f"{STATE}/report.html"
