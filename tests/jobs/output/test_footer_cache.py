"""The footers of many parts are kept, and read again where a part is not as it was."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from pipemill.jobs.output import footer_cache, ledger
from pipemill.jobs.output.ledger import open_output

import pipemill
from tests.support import light


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "LEAST_PARTS", 5)
    light.install(monkeypatch)
    texts = [None if n % 7 == 3 else f"text {n}" for n in range(60)]
    pipemill.run(light.job(tmp_path, texts, rows_per_part=3))
    return tmp_path / "out"


def test_they_are_read_once(output, monkeypatch):
    opened, _, plan = open_output(output, None)
    first = opened.footers(plan.splits)
    assert (output / "_pipemill/footers.parquet/rows").exists()
    read = []
    monkeypatch.setattr(type(opened), "_read_footer", lambda self, part: read.append(part))
    assert opened.footers(plan.splits) == first
    assert read == []


def test_a_part_that_was_written_again_is_read_again(output, tmp_path):
    before = pipemill.status(output)
    assert before.dead == 9
    table = pq.read_table(tmp_path / "in.parquet")
    assert table.num_rows == 60
    opened, _, plan = open_output(output, None)
    part = output / plan.splits[1].part
    whole = part.read_bytes()
    part.write_bytes((output / plan.splits[2].part).read_bytes())
    changed = opened.footers(plan.splits)
    assert changed[1].split == 2
    part.write_bytes(whole)
    assert opened.footers(plan.splits)[1].split == 1


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None])
def test_a_damaged_table_only_costs_time(output, content):
    expected = pipemill.status(output)
    kept = output / "_pipemill/footers.parquet/rows"
    assert kept.exists()
    if content is None:
        kept.unlink()
    else:
        kept.write_bytes(content)
    assert pipemill.status(output) == expected


def test_an_output_that_can_not_be_written_to_is_read(output, monkeypatch):
    def refuse(self, data):
        raise PermissionError("read-only")

    monkeypatch.setattr(footer_cache.StateTable, "write", refuse)
    (output / "_pipemill/footers.parquet/rows").unlink(missing_ok=True)
    assert pipemill.status(output).dead == 9
