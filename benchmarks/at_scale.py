"""What a large job costs its driver before the first row: planning, resuming, `status`.

    python -m benchmarks.at_scale

Files and rows are made up; the plan, its file and the parts in the output are real ones. Each
size runs in a fresh process. Prints a table: seconds, and the most memory of a process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pipemill.actors.output.layout import STATE
from pipemill.actors.output.part_file import encode_part
from pipemill.actors.output.part_footer import PartFooter
from pipemill.actors.sources.split_ranges import cut_rows
from pipemill.actors.split import Split
from pipemill.actors.storage.input_file import InputFile
from pipemill.actors.storage.store import Store
from pipemill.jobs.config.load import build_job
from pipemill.jobs.output.job_record import JobRecord
from pipemill.jobs.output.lease import Lease
from pipemill.jobs.output.ledger import Ledger
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.prepare import make_output_store, prepare
from pipemill.jobs.status import status

from tests.support import tiny

ROWS_PER_FILE = 10_000
SCHEMA = pa.schema([("text", pa.string())])
SIZES = {
    "plan": (10_000, 100_000, 1_000_000),
    "files": (10_000, 100_000, 1_000_000),
    "ledger": (1_000, 10_000, 100_000),
    "restart": (1_000, 10_000, 100_000),
}
ROWS_PER_PART = 100
PARTS_PER_FILE = 100
MOST_LINKS = 50_000  # of a file, on ext4 a little more
PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

SAVE_MODEL = """
import sys; from tests.support import tiny; tiny.save(sys.argv[1], "ForSequenceClassification")
"""

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
        done, left = again.splits.divide(lambda split: split.part == "")
    assert (len(done), len(left)) == (0, seconds["splits"])
    return seconds


def files(count: int, folder: str) -> Seconds:
    """A run up to its first row, over so many Parquet files of ten rows; then once more.

    Each is a process. The files are hard links to a few.
    """
    seconds: Seconds = {}
    model, source, first = (str(Path(folder, "model")), Path(folder, "in"), Path(folder, "first"))
    # In another process, which leaves this one without torch, as that of a run is.
    subprocess.run([sys.executable, "-c", SAVE_MODEL, model], check=True)
    for number in range(count):
        if number % MOST_LINKS == 0:
            first.unlink(missing_ok=True)
            pq.write_table(pa.table({"text": [f"post {row}" for row in range(10)]}), first)
        if number % 10_000 == 0:
            (below := source / f"{number:08}").mkdir(parents=True)
        os.link(first, below / f"{number:08}.parquet")
    command = [sys.executable, "-m", "benchmarks.at_scale", "--prepare", folder]
    peaks = []
    for what in ("plan", "resume"):
        with timed(seconds, what):
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        found = json.loads(said.splitlines()[-1])
        assert found["rows"] == 10 * count
        seconds["splits"] = found["splits"]
        peaks.append(found["peak_mib"])
    return {**seconds, "peak_mib": max(peaks)}


def prepare_files(folder: str) -> dict[str, int]:
    """Prepare the job of `files` as `run` does; return what is left, and this process's memory."""
    given = {"task": "text-classification", "model": str(Path(folder, "model"))}
    paths = {"input": str(Path(folder, "in")), "output": str(Path(folder, "out"))}
    job = build_job(None, [], {}, {**given, **paths})
    with Lease(make_output_store(job)) as lease:
        _, left = prepare(job, lease).plan.splits.divide(lambda split: False)
    rows = sum(split.rows or 0 for split in left)
    return {
        "rows": rows,
        "splits": len(left),
        "peak_mib": measure_peak(resource.RUSAGE_SELF) // 1024,
    }


def ledger(parts: int, folder: str) -> Seconds:
    """An output in which all but ten of so many parts exist."""
    seconds: Seconds = {}
    made = Plan("parquet", SCHEMA)
    file = InputFile("s3://bucket/in/0.parquet", 10**9, "1")
    made.add(cut_rows([file], [parts * 100], parts * 100, 100, None))
    Path(folder, STATE).mkdir()
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
        done, left = again.splits.divide(lambda split: split.part in exist)
        tally = book.totals(done)
    assert (len(left), tally["rows"]) == (10, (parts - 10) * 100)
    with timed(seconds, "status"):
        assert status(folder).splits_left == 10
    return seconds


def restart(parts: int, folder: str) -> Seconds:
    """The same command again, for an output in which all but ten of so many parts exist.

    Of the input's files only those of the ten parts still hold rows. The others are zeros of the
    same size and date, so that a run which opens them fails.
    """
    model = str(tiny.save(Path(folder, "model"), "ForSequenceClassification"))
    source, out = Path(folder, "in"), Path(folder, "out")
    write_input(source, parts)
    arguments = ["--task", "text-classification", "--model", model, "--input", str(source)]
    command = [sys.executable, "-m", "pipemill", "run", *arguments, "--output", str(out)]
    command += ["--set", f"output.rows_per_part={ROWS_PER_PART}"]
    first = start(command)
    wait_for(lambda: any(out.glob("part-*")), first)
    first.send_signal(signal.SIGINT)
    first.wait()
    left = complete_output(out, parts)
    made = Ledger(Store(str(out))).read_plan()
    assert made is not None
    for file in {Path(split.path) for split in made.splits}:
        if all(split.path != str(file) for split in left):
            blank(file)
    seconds: Seconds = {}
    for name in ("first_part", "again"):
        with timed(seconds, name):
            run = start(command)
            wait_for(lambda: any(Path(out, split.part).exists() for split in left), run)
        assert run.wait() == 0, "a finished input was opened, or the run failed"
        for split in left:
            Path(out, split.part).unlink()
    return seconds


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(happened: Callable[[], bool], run: subprocess.Popen[bytes]) -> None:
    while not happened():
        assert run.poll() in (None, 0), "the run failed"
        time.sleep(0.05)


def write_input(folder: Path, parts: int) -> None:
    folder.mkdir()
    rows = ROWS_PER_PART * min(PARTS_PER_FILE, parts)
    for number in range(parts * ROWS_PER_PART // rows):
        texts = [f"row {number * rows + row}" for row in range(rows)]
        pq.write_table(pa.table({"text": texts}), folder / f"{number:06}.parquet")


def complete_output(out: Path, parts: int) -> list[Split]:
    """Write all parts but ten, as copies of one that the run wrote; return the ten."""
    book = Ledger(Store(str(out)))
    made, exist = book.read_plan(), book.parts()
    assert made is not None
    assert len(made.splits) == parts
    model = next(split for split in made.splits if split.part in exist)
    (footer,), table = book.footers([model]), pq.read_table(out / model.part)
    left = list(made.splits[parts // 2 : parts // 2 + 10])
    for split in made.splits:
        if split in left:
            Path(out, split.part).unlink(missing_ok=True)
        elif split.part not in exist:
            Path(out, split.part).write_bytes(
                encode_part(table, replace(footer, split=split.number))
            )
    return left


def blank(file: Path) -> None:
    before = file.stat()
    with file.open("r+b") as opened:
        opened.truncate(0)
        opened.truncate(before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def measure_peak(who: int) -> int:
    return resource.getrusage(who).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "SIZE"))
    parser.add_argument("--prepare", metavar="FOLDER")
    options = parser.parse_args()
    if options.prepare:
        print(json.dumps(prepare_files(options.prepare)))
        return
    if options.one:
        what, size = options.one[0], int(options.one[1])
        with tempfile.TemporaryDirectory() as folder:
            measured = {"plan": plan, "files": files, "ledger": ledger, "restart": restart}
            seconds = measured[what](size, folder)
        print(json.dumps({"peak_mib": max(map(measure_peak, PROCESSES)) // 1024} | seconds))
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
