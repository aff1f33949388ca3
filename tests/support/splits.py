"""Plans and reads inputs as a job does, without one."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from pipemill.actors.sources.open_source import open_source
from pipemill.actors.split import Split
from pipemill.jobs.output.split_plan import Plan
from pipemill.jobs.planning.find_inputs import list_files

FOLDER = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def plan(path, rows_per_part=None, limit=None, format="auto", reading=None):
    paths = path if isinstance(path, list) else str(path)
    files, format, _ = list_files(paths, format, {}, "/nowhere")
    source = open_source(format, {}, reading=reading)
    made = Plan(format, source.infer_schema(files))
    made.add(source.plan_splits(files, rows_per_part, limit))
    return made


def read(made, reading=None):
    source = open_source(made.format, {}, made.schema, reading)
    return [source.read(split) for split in made.splits]


def rows(batches):
    return [row for batch in batches for row in batch.rows.to_pylist()]


def split_of(path, start=0, stop=-1):
    """A piece of a file, cut by hand."""
    return Split(0, str(path), 0, "", start, stop)
