"""Footers that older and newer versions wrote."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from pipemill.actors.output.part_footer import DeadLetterFooter, PartFooter, read_footer_json

OLD = {"job": "t", "fingerprint": "f", "split": 1, "rows": 3, "dead": 1, "dead_rows": [[0, 1]]}


def test_what_older_parts_lack_has_a_default():
    footer = PartFooter.from_json(OLD)
    assert (footer.rows, footer.truncated_rows, footer.left_out, footer.retried) == (3, 0, {}, {})
    assert json.loads(json.dumps(footer.to_json())).items() >= OLD.items()


def test_what_newer_parts_have_stays():
    newer = {**OLD, "retried": {"g": [[1, 2]]}, "left_out": {"k": 2}, "languages": ["de"]}
    read = PartFooter.from_json(newer).to_json()
    assert json.loads(json.dumps(read)).items() >= newer.items()


def test_millions_of_dead_rows_take_little_memory():
    """A driver holds the footers of all parts."""
    text = json.dumps({**OLD, "dead_rows": [[row, row + 1] for row in range(0, 20_000, 2)]})
    tracemalloc.start()
    footers = [PartFooter.from_json(json.loads(text)) for _ in range(3)]
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / (len(footers) * 10_000) < 24


def test_other_footers():
    assert read_footer_json({"split": 4}) == DeadLetterFooter(4)
    assert read_footer_json(OLD) == PartFooter.from_json(OLD)
    with pytest.raises(KeyError):
        read_footer_json({"rows": 4})
    with pytest.raises(TypeError):
        read_footer_json({"fingerprint": "f"})
