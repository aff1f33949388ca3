"""Configs and files of anything: an answer, a dead letter, or an error that says what is wrong."""

from __future__ import annotations

import codecs
import json

import hypothesis.strategies as st
from hypothesis import example, given, settings
from pipemill.jobs.config.job import Job
from pipemill.jobs.config.load import make_job

from pipemill.errors import ConfigError
from tests.support.splits import FOLDER, plan, read, rows


def tried(call):
    """Its result and no error, or the error's text."""
    try:
        return call(), None
    except ConfigError as error:
        return None, str(error)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "all", "${HOME}", "${", "s3://", "\x00", "../..", "1e999"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=5,
)
VALID = {
    "task": "ner",
    "model": {"path": "m"},
    "input": {"path": "in", "columns": {"text": "body"}},
    "output": {"path": "out"},
    "parameters": {"stride": 8},
    "actors": {"max": 2},
}
KEYS = [
    *VALID, "batching", "pipeline_class", "modle", "",
    *(f"{section}.{key}" for section in ("model", "input", "output", "batching", "actors")
      for key in ("path", "dtype", "format", "columns", "limit", "keep", "rows_per_part",
                  "max_errors", "max_tokens", "num_gpus", "schema", "media_roots", "x")),
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
@example({"output.max_errors": float("nan")})
@example({"input.limit": 10**30})
@example({"input.path": [{}]})
def test_any_config_is_a_job_or_an_error_that_says_why(changes):
    data = json.loads(json.dumps(VALID))
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if not name:
            data[section] = value
        elif isinstance(data.setdefault(section, {}), dict):
            data[section][name] = value
    job, refusal = tried(lambda: make_job(data, "the job"))
    if refusal is None:
        assert isinstance(job, Job)
        dumped = job.model_dump()
        if isinstance(job.input.path, str | list):  # rows are only described
            assert job == make_job(dumped, "the job")
    else:
        assert "in the job" in refusal


LINES = st.lists(
    st.binary(max_size=30)
    | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace"))
    | st.dictionaries(st.sampled_from(["a", "b", "\ud800x"]), VALUES, max_size=3).map(
        lambda row: json.dumps(row).encode()
    )
    | st.sampled_from([b"{", b'{"a":', b"null", b"[]", b'{"a": NaN}', b"[" * 5000, b"\xff\xfe{}"]),
    min_size=1,
    max_size=12,
)


@FOLDER
@given(LINES, st.sampled_from([None, 1, 3]), st.booleans())
@example([b'{"a": "\\ud800"}'], None, True)
@example([b"[]"], None, False)
@example([codecs.BOM_UTF8], None, False)
@example([b"", codecs.BOM_UTF8], None, False)
def test_every_line_of_any_file_is_a_row_or_a_dead_letter(tmp_path, lines, rows_per_part, ends):
    lines = [line.replace(b"\n", b" ") for line in lines]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" * ends)
    made, refusal = tried(lambda: plan(path, rows_per_part))
    if made is None:
        assert "in.jsonl" in refusal
        return
    batches = read(made)
    # Files that were joined may have such a mark in any line.
    texts = [line.removeprefix(codecs.BOM_UTF8).strip() for line in lines]
    is_empty_array = path.read_bytes().strip() == b"[]"
    assert len(rows(batches)) == sum(bool(text) and not is_empty_array for text in texts)
    for batch in batches:
        assert batch.rows.schema.equals(made.schema)
        assert {failure.stage for failure in batch.failures.values()} <= {"read"}


@FOLDER
@given(st.binary(max_size=120), st.sampled_from([None, 2]))
def test_any_bytes_are_csv_or_an_error_that_names_the_file(tmp_path, data, rows_per_part):
    path = tmp_path / "in.csv"
    path.write_bytes(b"a,b\n1,2\n" + data)
    batches, refusal = tried(lambda: read(plan(path, rows_per_part)))
    if batches is None:
        assert "in.csv" in refusal
        return
    found = rows(batches)
    assert found, "the first row is there"
    assert all(row.keys() == {"a", "b"} for row in found)
