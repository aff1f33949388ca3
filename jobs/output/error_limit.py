"""Stop a job of which more rows fail than it allows."""

from __future__ import annotations

from pipemill.errors import RunError

from ..config.job import OutputSection
from .dead_letter_reasons import Reasons, describe_reason, format_reasons
from .run_report import Report

# Among fewer rows a share of dead ones says little.
_ROWS_BEFORE_A_SHARE = 1000


def check_on_the_way(output: OutputSection, rows: int, dead: int, whole: int) -> str | None:
    """Return what is wrong with this many dead rows so far; None if they are allowed.

    Args:
        whole: all rows that there are to do.
    """
    limit = output.max_errors
    if limit is None:
        return None
    share = isinstance(limit, float) and limit <= 1
    enough = _ROWS_BEFORE_A_SHARE
    if "max_errors" in output.model_fields_set:  # then it holds for a small input, too
        enough = min(enough, whole)
    if dead <= (limit * rows if share else limit) or (share and rows < enough):
        return None
    return f"{dead:,} of {rows:,} rows failed, more than output.max_errors ({limit:g}) allows"


def check_at_the_end(output: OutputSection, report: Report) -> None:
    """Raise RunError, which holds the report, if too many rows are dead, or all of them."""
    rows, dead = report.rows, report.dead
    wrong = check_on_the_way(output, rows, dead, whole=rows)
    advice = "Correct the cause, then `pipemill retry`; another input needs another output"
    if rows and dead == rows and output.max_errors is not None:
        wrong = "the only row failed" if rows == 1 else f"all {rows:,} rows failed"
    elif wrong:
        advice += ". Or raise output.max_errors"
    if wrong:
        why = f" ({describe_reason(report.dead_reasons[0])})" if report.dead_reasons else ""
        raise RunError(f"{wrong}{why}. {advice}", report)


def explain_error_limit(wrong: str, reasons: Reasons, dead: int) -> RunError:
    """Return the error that ends a run with rows left."""
    lines = format_reasons(reasons.dead_letters, reasons.kinds, reasons.read, dead)
    advice = "Correct the cause, or raise output.max_errors; run again to resume"
    return RunError("\n".join([f"{wrong}.", *lines, advice]))
