"""What workers and the driver record is what Ray's own endpoint shows, under the names of docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

from pipemill.actors.monitoring.metrics import METRICS
from pipemill.actors.monitoring.ray_connection import find_connected_ray
from pipemill.actors.monitoring.ray_metrics import record_progress, record_split
from pipemill.actors.split_result import SplitResult

from tests.support import splits
from tests.support.ray_endpoint import wait_for_series

WORK = {
    "read_seconds": 0.5,
    "expand_seconds": 2.0,
    "forward_seconds": 20.0,
    "regroup_seconds": 0.0,
    "write_seconds": 0.25,
    "tokens": 700,
    "padded_tokens": 1000,
    "chunks": 12,
    "out_of_memory": 2,
    "budget_4096": 1,
}


def test_every_metric_is_at_the_endpoint(ray_session):
    result = SplitResult(
        split=splits.split_of("in.jsonl"), rows=10, dead=3, work=WORK, reasons={"read: A": 3}
    )
    record_split(result, "mine", "ner")
    record_split(SplitResult(split=result.split), "mine", "ner")  # another worker wrote the part
    expected = {
        ("ray_pipemill_rows_total", "task", "ner"): 10,
        ("ray_pipemill_rows_total", "outcome", "dead"): 3,
        ("ray_pipemill_tokens_total", "kind", "real"): 700,
        ("ray_pipemill_tokens_total", "kind", "padding"): 300,
        ("ray_pipemill_chunks_total", "job", "mine"): 12,
        ("ray_pipemill_device_busy_seconds_total", "job", "mine"): 20,
        ("ray_pipemill_stage_seconds_sum", "stage", "expand"): 2,
        ("ray_pipemill_stage_seconds_count", "job", "mine"): 5,
        ("ray_pipemill_dead_letters_total", "reason", "read: A"): 3,
        ("ray_pipemill_oom_shrinks_total", "job", "mine"): 2,
        ("ray_pipemill_budget_tokens", "job", "mine"): 4096,
        ("ray_pipemill_splits", "state", "left"): 6,
        ("ray_pipemill_splits", "state", "failed"): 0,
        ("ray_pipemill_eta_seconds", "job", "mine"): 90.5,
    }
    assert {name for metric in METRICS for name in metric.series} >= {name for name, *_ in expected}
    assert all({name for name, *_ in expected} & set(metric.series) for metric in METRICS)

    def find(series):
        # Ray forgets a gauge when it has exported it.
        record_progress("mine", {"done": 1, "left": 6, "failed": 0}, 90.5)
        return {
            (name, label, value): series.total(name, **{"job": "mine", label: value})
            for name, label, value in expected
        }

    series = wait_for_series(lambda series: None not in find(series).values())
    # Ray counts a histogram's sum by the middle of its buckets.
    found = find(series)
    assert found.pop(("ray_pipemill_stage_seconds_sum", "stage", "expand")) > 1
    del expected[("ray_pipemill_stage_seconds_sum", "stage", "expand")]
    assert found == expected


def test_without_a_ray_nothing_of_it_is_imported(tmp_path):
    code = (
        "import pathlib, sys, pipemill\n"
        "from tests.support import light\n"
        "light.install()\n"
        f"pipemill.run(light.job(pathlib.Path({str(tmp_path)!r}), ['a', 'b']))\n"
        "print('ray.util.metrics' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_docs_have_every_metric():
    page = (Path(__file__).parents[3] / "docs/watching.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `pipemill_")]
    assert rows == [
        f"| `{metric.name}` | {metric.kind} | "
        f"{', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]


def test_nothing_is_recorded_while_ray_is_imported(monkeypatch):
    """As another thread does it, where a library that a pipeline uses imports Ray."""
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    assert find_connected_ray() is None
    record_progress("mine", {"done": 1}, 2.0)
