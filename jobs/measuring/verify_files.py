"""Check the files of an output: the parts and the dead letters, and that there are no others."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.output.layout import DEAD_LETTERS
from pipemill.actors.output.part_file import PartInfo, check_part, from_ranges
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.output.state_table import dead_letters
from pipemill.actors.split import Split
from pipemill.actors.storage.backoff import is_of_store, retry_on_driver

from pipemill.errors import RunError, describe_error

from ..output.job_record import JobRecord
from ..output.ledger import Ledger
from ..output.split_plan import Plan

# Files that a disk can't read. Each is asked for again for 15 s; of more, the disk itself is away.
_MOST_UNREADABLE = 32
_FIX = "delete it and run the job again"


def list_files(ledger: Ledger) -> set[str]:
    """Return the names of all files below the output that readers take for its data."""
    names = {name[len(ledger.root) :].lstrip("/") for name in ledger.filesystem.find(ledger.root)}
    return {n for n in names if not any(piece[:1] in "._" for piece in n.split("/"))}


def check_names(files: set[str], plan: Plan) -> list[str]:
    """Return a finding for each file that is not a part of the plan."""
    findings = []
    others = sorted(files - {split.part for split in plan.splits})
    of_number = {split.part[:13]: split for split in plan.splits} if others else {}
    for name in others:
        split = of_number.get(name.rsplit("/", 1)[-1][:13])
        what = f"a second part of split {split.number}" if split else "not a part of this output"
        findings.append(f"{name} is {what}, and readers take its rows too. Remove it")
    return findings


def check_parts(
    ledger: Ledger, record: JobRecord, splits: Sequence[Split]
) -> tuple[dict[int, PartFooter], list[str]]:
    """Return the footers of the parts that are right, by the number of their split, and findings
    on the others."""

    same: dict[pa.Schema, pa.Schema] = {}  # a million parts may share one
    disk = _DiskErrors()

    def read(name: str) -> tuple[PartInfo, str | None]:
        with ledger.open(name) as file:
            return check_part(file)

    def check(split: Split) -> tuple[PartInfo, str | None] | Exception:
        try:
            path = f"{ledger.path}/{split.part}"
            part, changed = retry_on_driver(partial(read, split.part), path)
        except RunError as error:
            return disk.accept(error)
        except Exception as error:  # from the filesystem, or Parquet
            return error
        return replace(part, schema=same.setdefault(part.schema, part.schema)), changed

    good: dict[int, PartFooter] = {}
    findings: list[str] = []
    checks = list(zip(splits, ledger.map_parallel(check, splits), strict=True))
    schemas = Counter(one[0].schema for _, one in checks if not isinstance(one, Exception))
    usual = schemas.most_common(1)[0][0] if schemas else None
    for split, one in checks:
        if isinstance(one, Exception):
            reason = f"is damaged ({describe_error(one)}); {_FIX}"
            if is_of_store(one):  # what the part holds is unknown
                reason = f"can't be read ({describe_error(one)})"
            findings.append(f"{split.part} {reason}")
            continue
        part, changed = one
        wrong = [changed] if changed else _check_footer(part, split, record)
        if usual and part.schema != usual and not changed:
            wrong.append(
                f"its columns are {_describe_columns(part.schema)}, "
                f"others have {_describe_columns(usual)}"
            )
        if wrong:
            findings.append(f"{split.part}: {'; '.join(wrong)}; {_FIX}")
        elif isinstance(part.footer, PartFooter):
            good[split.number] = part.footer
    return good, findings


def _check_footer(part: PartInfo, split: Split, record: JobRecord) -> list[str]:
    """Return what does not agree between a part's footer, its rows, and the plan."""
    footer = part.footer
    if not isinstance(footer, PartFooter):
        return ["it holds dead letters"]
    if footer.split != split.number:
        return [f"it is the part of split {footer.split}, under the name of split {split.number}"]
    wrong = []
    if footer.fingerprint != record.fingerprint:
        wrong.append(f"another job wrote it ({footer.job}, {footer.fingerprint})")
    if split.rows is not None and footer.rows != split.rows:
        wrong.append(f"it accounts for {footer.rows} rows, but its split has {split.rows}")
    if len(from_ranges(footer.dead_rows)) != footer.dead:
        wrong.append("its numbers of dead rows do not agree")
    kept = record.keeps_dead_rows
    expected = footer.rows - (0 if kept else footer.dead)
    if part.rows != expected:
        wrong.append(f"it holds {part.rows} rows, not {expected}")
    return wrong


def _describe_columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


class _DiskErrors:
    """Errors of a disk that can't read some files; those of a store, and very many, are raised."""

    def __init__(self) -> None:
        self._count = 0

    def accept(self, error: RunError) -> OSError:
        """Return what the disk said of a file that was asked for again and again, or raise it."""
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__
        self._count += 1
        if cause is None or cause.errno != errno.EIO or self._count > _MOST_UNREADABLE:
            raise error
        return cause


def check_letters(
    ledger: Ledger, plan: Plan, good: dict[int, PartFooter]
) -> tuple[list[str], list[str]]:
    """Check that each dead row of a part has one dead letter; return findings and notes.

    A dead letter of a row that has an answer is left from a retry that was killed between its two
    writes: the part is right.
    """
    there = {name for name in ledger.dead_letter_files() if not name.startswith(".")}
    known = {split.part for split in plan.splits}
    findings = [
        f"{DEAD_LETTERS}/{name} belongs to no split of the plan. Remove it"
        for name in sorted(there - known)
    ]

    disk = _DiskErrors()

    def check(split: Split) -> tuple[str | None, str | None]:
        name, footer = f"{DEAD_LETTERS}/{split.part}", good[split.number]
        look = partial(_check_letters_of, ledger, split, footer, split.part in there)
        try:
            return retry_on_driver(look, f"{ledger.path}/{name}")
        except (OSError, RunError) as store:
            error = disk.accept(store) if isinstance(store, RunError) else store
            return f"{name} can't be read ({describe_error(error)})", None

    checked = plan.splits.select(lambda split: split.number in good)
    each = ledger.map_parallel(check, checked)
    findings += [finding for finding, _ in each if finding is not None]
    return findings, [note for _, note in each if note is not None]


def _check_letters_of(
    ledger: Ledger, split: Split, footer: PartFooter, there: bool
) -> tuple[str | None, str | None]:
    """Return a finding on the dead letters of a split, or a note, if there is any."""
    rows, wrong = _read_letters(ledger, split, there)
    dead, named = set(from_ranges(footer.dead_rows).tolist()), set(rows)
    if wrong is None and dead - named:
        wrong = f"lacks rows {_name_first_few(dead - named)}, which {split.part} calls dead"
    if wrong is None and len(rows) != len(named):
        wrong = "has a row twice"
    if wrong is not None:
        return f"{DEAD_LETTERS}/{split.part} {wrong}; delete the part and run again", None
    if named - dead:
        return None, (
            f"{DEAD_LETTERS}/{split.part} still names rows {_name_first_few(named - dead)}, which "
            "have an answer: a retry was stopped. Retry again to remove them"
        )
    return None, None


def _read_letters(ledger: Ledger, split: Split, there: bool) -> tuple[list[int], str | None]:
    """Return the rows of a split's dead letters, and what is wrong with their file."""
    if not there:
        return [], None
    try:
        with dead_letters(ledger.store, split.part).open() as file:
            letters, changed = check_part(file)
            file.seek(0)
            table = pq.read_table(file, columns=["split", "row"])
    except FileNotFoundError:  # an empty folder, whose removal was cut short
        return [], None
    except Exception as error:
        if is_of_store(error):
            raise
        return [], f"is damaged ({describe_error(error)})"
    if changed:
        return [], f"is wrong: {changed}"
    if letters.footer is not None and letters.footer.split != split.number:
        return [], f"belongs to split {letters.footer.split}, not {split.number}"
    return table["row"].to_pylist(), None


def _name_first_few(rows: set[int]) -> str:
    first = sorted(rows)[:5]
    return ", ".join(map(str, first)) + (", …" if len(rows) > 5 else "")
