"""Check that an output holds every input row exactly once, as it was written."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipemill.pipelines.library_settings import keep_settings

from pipemill.errors import explain_interrupt

from .config.check_arguments import check_count, check_options
from .measuring.verify_files import check_letters, check_names, check_parts, list_files
from .measuring.verify_sample import SampleCheck, verify_sample
from .output.ledger import open_output
from .output.text_table import Block, Shown, format_count, make_fact_table
from .status import describe_lease, read_lease

# Findings and notes that are shown.
_SHOWN = 100


@dataclass(frozen=True, kw_only=True)
class Verification(Shown):
    """The result of `verify`.

    Attributes:
        rows, done, dead: The rows of the output, from the footers of its parts.
        parts: How many of the planned parts exist.
        findings: What is wrong, each with its file; empty if all is well.
        notes: What is not a fault, but good to know.
        sample: The comparison with rows that were computed again, if that was asked for.
    """

    output: str
    rows: int = 0
    done: int = 0
    dead: int = 0
    parts: int = 0
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sample: SampleCheck | None = None

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings

    def to_json(self) -> str:
        """Return one line, with the first of very many findings, and their number."""
        fields = {name: getattr(self, name) for name in ("output", "rows", "done", "dead", "parts")}
        return json.dumps(
            {
                **fields,
                "ok": self.ok,
                "problems": len(self.findings),
                "findings": self.findings[:_SHOWN],
                "notes": self.notes[:_SHOWN],
                "sample": self.sample and self.sample.summary(),
            }
        )

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        return [make_fact_table(self._list_facts())]

    def _list_facts(self) -> list[tuple[str, str]]:
        lines = [
            ("output", f"{self.output} ({format_count(self.parts, 'part')})"),
            ("rows", f"{self.rows:,} ({self.done:,} done, {self.dead:,} dead)"),
        ]
        if self.sample is not None:
            lines.append(("sample", str(self.sample)))
            if self.sample.drift is not None:
                lines.append(("drift", str(self.sample.drift)))
        lines += [("note", note) for note in self.notes[:_SHOWN]]
        lines += [("wrong", finding) for finding in self.findings[:_SHOWN]]
        if len(self.findings) > _SHOWN:
            lines.append(("", f"… and {len(self.findings) - _SHOWN:,} more"))
        problems = format_count(len(self.findings), "problem")
        lines.append(("result", "every input row is there exactly once" if self.ok else problems))
        return lines


def verify(
    output: str | os.PathLike[str],
    *,
    sample: int = 0,
    storage_options: Mapping[str, Any] | None = None,
    input_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Read every part of an output, and return what is wrong with it.

    Args:
        output: The folder or URL that a run wrote to.
        sample: How many random rows to compute again, one at a time, with plain transformers. The
            input and the model must then be where they were.
        storage_options: For the output's filesystem.
        input_options: For the input's filesystem.

    Returns:
        What was checked, and what is wrong.

    Raises:
        ConfigError: The folder is not an output of pipemill, or a sample lacks its model or input.
    """
    check_count(0, sample=sample)
    options = check_options("input_options", input_options)
    with explain_interrupt("interrupted"), keep_settings():
        return _verify(output, sample, storage_options or {}, options)


def _verify(
    output: str | os.PathLike[str],
    sample: int,
    storage_options: Mapping[str, Any],
    input_options: Mapping[str, Any],
) -> Verification:
    ledger, record, plan = open_output(output, storage_options)
    files = list_files(ledger)
    there, left = plan.splits.divide(lambda split: split.part in files)
    missing = [
        f"{split.part} is missing, the part of split {split.number} ({split.place}). Run the job "
        "again"
        for split in left
    ]
    good, wrong_parts = check_parts(ledger, record, there)
    wrong_letters, notes = check_letters(ledger, plan, good)
    findings = [*check_names(files, plan), *missing, *wrong_parts, *wrong_letters]
    if missing and (lease := read_lease(ledger)):
        notes.append(f"{describe_lease(lease)} holds the output, and may write what is missing")
    check = verify_sample(ledger, record, plan, good, sample, input_options) if sample else None
    if check is not None:
        findings += check.findings
        notes += check.notes
    rows = sum(footer.rows for footer in good.values())
    dead = sum(footer.dead for footer in good.values())
    return Verification(
        output=ledger.path,
        rows=rows,
        done=rows - dead,
        dead=dead,
        parts=len(there),
        findings=findings,
        notes=notes,
        sample=check,
    )
