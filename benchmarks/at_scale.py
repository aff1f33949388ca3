"""What a large job costs its driver before the first row: planning, resuming, `status`.

    python -m benchmarks.at_scale

Files and rows are made up; the plan, its file and the parts in the output are real ones. Each
size runs in a fresh process. Prints a table: seconds, and the most memory the process held.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pipemill.actors.output.layout import STATE
from pipemill.actors.output.part_file import encode_part
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.sources.split_ranges import cut_rows
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.store import Store
from pipemill.jobs.output.job_record import JobRecord
from pipemill.jobs.output.ledger import Ledger
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.status import status

ROWS_PER_FILE = 10_000
SCHEMA = pa.schema([("text", pa.string())])
SIZES = {"plan": (10_000, 100_000, 1_000_000), "ledger": (1_000, 10_000, 100_000)}

Seconds = dict[str, float]


@contextmanager
def timed(seconds: Seconds, what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - start, 1)


def plan(files: int, folder: str) -> Seconds:
    """A job over so many Parquet files, planned and stored; then the same command again."""
    seconds: Seconds = {}
    listed = [InputFile(f"s3://bucket/in/{n:07}.parquet", 10**7, f"{n:032x}") for n in range(files)]
    rows = [ROWS_PER_FILE] * files
    with timed(seconds, "plan"):
        made = Plan("parquet", SCHEMA)
        made.add(cut_rows(listed, rows, files * ROWS_PER_FILE * 100, None, None))
    with timed(seconds, "store"):
        data = made.to_bytes()
    seconds["splits"], seconds["plan_mib"] = len(made.splits), round(len(data) / 2**20, 1)
    del made
    with timed(seconds, "read"):
        again = Plan.from_bytes(data)
    with timed(seconds, "resume"):
        assert again.new_files(listed) == []
        assert len({split.part for split in again.splits}) == len(again.splits)
    return seconds


def ledger(parts: int, folder: str) -> Seconds:
    """An output in which all but ten of so many parts exist."""
    seconds: Seconds = {}
    made = Plan("parquet", SCHEMA)
    file = InputFile("s3://bucket/in/0.parquet", 10**9, "1")
    made.add(cut_rows([file], [parts * 100], parts * 100, 100, None))
    book = Ledger(Store(folder))
    book.write_plan(made)
    book.write_job(JobRecord(job={"task": "text-classification"}, decides={}))
    for split in made.splits[:-10]:
        table = pa.table({"text": ["a"], "label": ["b"]})
        footer = PartFooter(job="", fingerprint="", split=split.number, rows=100, dead=0)
        data = encode_part(table, footer)
        Path(folder, split.part).write_bytes(data)
    with timed(seconds, "list"):
        exist = book.parts()
    with timed(seconds, "resume"):
        again = book.read_plan()
        assert again is not None
        left = [split for split in again.splits if split.part not in exist]
        tally = book.totals(split for split in again.splits if split.part in exist)
    assert (len(left), tally["rows"]) == (10, (parts - 10) * 100)
    with timed(seconds, "status"):
        assert status(folder).splits_left == 10
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "SIZE"))
    options = parser.parse_args()
    if options.one:
        what, size = options.one[0], int(options.one[1])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, STATE).mkdir()
            seconds = {"plan": plan, "ledger": ledger}[what](size, folder)
        print(
            json.dumps(
                {**seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
            )
        )
        return
    for what, sizes in SIZES.items():
        for number, size in enumerate(sizes):
            command = [sys.executable, "-m", "benchmarks.at_scale", "--one", what, str(size)]
            said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            if not number:
                print(f"\n| {what} of | " + " | ".join(said) + " |")
                print("| ---: |" + " ---: |" * len(said))
            print(f"| {size:,} | " + " | ".join(f"{v:,}" for v in said.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
