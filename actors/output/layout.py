"""The layout of an output: parts at the top, all other files of pipemill in one folder."""

from __future__ import annotations

from collections.abc import Iterable

# Readers of datasets skip names that start with an underscore.
STATE = "_pipemill"
DEAD_LETTERS = f"{STATE}/dead-letter"
JOB = f"{STATE}/job.json"
PLAN = f"{STATE}/plan.parquet"
FOOTERS = f"{STATE}/footers.parquet"
STORED_INPUT = f"{STATE}/input"
STORED_MODEL = f"{STATE}/model"
LEASE = f"{STATE}/lease"
LEASE_SUFFIX = ".json"
LOG = f"{STATE}/log"
ATTEMPTS = f"{STATE}/attempts"
REPORT = f"{STATE}/report.html"


def name_lease(number: int) -> str:
    """Return the file of a lease. That with the highest number counts; the others are removed."""
    return f"{LEASE}/{number:08d}{LEASE_SUFFIX}"


def list_lease_numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the leases among the names in their folder."""
    found = (name.removesuffix(LEASE_SUFFIX) for name in names if name.endswith(LEASE_SUFFIX))
    return [int(number) for number in found if number.isdigit()]
