"""The budget that a job's first run has measured, kept in the output for the runs after it."""

from __future__ import annotations

from ..config.job import Job
from .ledger import Ledger

_KEY = "max_tokens"


def load_token_budget(job: Job, ledger: Ledger) -> int | None:
    """Tokens of a micro-batch, for a job that leaves them open; None if nothing is known."""
    if job.batching.max_tokens != "auto":
        return None
    return ((ledger.read_job() or {}).get(_KEY) or {}).get(_device(job))


def save_token_budget(job: Job, ledger: Ledger, tokens: int | None) -> None:
    """tokens: what most splits of a run had settled for; None if none had."""
    record = ledger.read_job()
    if job.batching.max_tokens != "auto" or tokens is None or record is None:
        return
    known = record.get(_KEY) or {}
    if known.get(_device(job)) != tokens:
        ledger.write_job({**record, _KEY: {**known, _device(job): tokens}})


def _device(job: Job) -> str:
    return "gpu" if job.actors.gpus_each else "cpu"
