"""The same job in one process, in one actor, and over three Ray operators."""

from __future__ import annotations

import json
import time

import pyarrow.dataset as ds
import ray.data
from pipemill.actors.split_result import results_from_table, results_to_table
from pipemill.jobs.execution import placement as placements

import pipemill
from tests.support import tiny
from tests.support.ray_endpoint import wait_for_series
from tests.support.splits import split_of
from tests.support.tables import same_rows


def test_every_placement_gives_the_same_answers_and_dead_letters(models, tmp_path, ray_session):
    texts = [f"{text} [MASK]" for text in tiny.texts(150, seed=4, longest=15)]
    lines = [json.dumps({"n": i, "text": text}) for i, text in enumerate(texts)]
    lines[3], lines[77], lines[140] = (
        "{",
        '{"n": 77, "text": null}',
        '{"n": 140, "text": "no mask"}',
    )
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    tables, letters = {}, {}
    for place in ("local", "fused", "staged"):
        out = tmp_path / place
        wanted = {
            "task": "fill-mask",
            "model": models["fill-mask"],
            "input": str(tmp_path / "in.jsonl"),
            "output": {"path": str(out), "rows_per_part": 20},
            "actors": {"placement": place, "max": 1},
        }
        report = pipemill.run(wanted)
        assert (report.rows, report.done, report.dead) == (150, 147, 3)
        if place == "local":
            tried = pipemill.retry(wanted)
            assert tried.added == {"rows": 3, "done": 0, "dead": 3, "splits": 3}
        tables[place] = ds.dataset(out).to_table()
        letters[place] = ds.dataset(out / "_pipemill/dead-letter").to_table()
    assert letters["local"]["attempts"].to_pylist() == [2, 2, 2]
    for place in ("fused", "staged"):
        assert same_rows(tables[place], tables["local"])
        once = letters[place].drop_columns("attempts")
        assert once.equals(letters["local"].drop_columns("attempts"))
    assert tables["local"]["n"].to_pylist() == [i for i in range(150) if i not in (3, 77, 140)]
    check_metrics("fused")
    check_metrics("staged")


def check_metrics(job):
    """The metrics that the workers of the run recorded are at Ray's endpoint when it has ended."""
    rows = "ray_pipemill_rows_total"
    series = wait_for_series(lambda series: series.total(rows, job=job) == 150)
    assert series.total(rows, job=job, task="fill-mask", outcome="done") == 147
    assert series.total(rows, job=job, outcome="dead") == 3
    assert series.total("ray_pipemill_dead_letters_total", job=job) == 3
    reason = "read: JSONDecodeError"
    assert series.total("ray_pipemill_dead_letters_total", job=job, reason=reason) == 1
    for stage in ("read", "expand", "forward", "regroup", "write"):
        assert series.total("ray_pipemill_stage_seconds_count", job=job, stage=stage) == 8


def test_the_result_of_a_split_does_not_wait_for_others_of_its_block(monkeypatch, ray_session):
    def work(table):
        time.sleep(0.3)
        return results_to_table(results_from_table(table))

    monkeypatch.setattr(placements, "count_blocks", lambda splits, actors: 1)
    dataset = placements._make_dataset([split_of("a", i, i + 1) for i in range(5)], actors=1)
    results = placements._read_results(
        dataset.map_batches(work, batch_size=1, batch_format="pyarrow")
    )
    came = [time.monotonic() for _ in results]
    assert len(came) == 5
    assert came[-1] - came[0] > 0.6


def test_every_actor_of_a_large_cluster_gets_blocks():
    for actors in (1, 64, 500, 2000):
        blocks = placements.count_blocks(10**6, actors)
        assert blocks >= 2 * placements._WRITING_CALLS * actors, "two for each of its calls"
        assert blocks <= max(1000, 8 * actors)
        assert placements.count_blocks(700, actors) == 700
    assert placements.count_blocks(10**6, 10**6) == 20_000


def test_the_progress_bar_shows_rows_rate_time_left_and_dead_letters(capsys):
    from pipemill.jobs.execution.progress import Progress

    with Progress("ner", 100) as progress:
        progress.add(40, 3, 100)
        progress.bar.refresh()
    shown = capsys.readouterr().err
    assert "40/100" in shown
    assert "3 dead letters" in shown
    assert "rows/s" in shown
    assert "<" in shown  # elapsed<left


def test_the_settings_of_the_programs_own_datasets_stay(ray_session, monkeypatch):
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "enable_progress_bars", True)
    monkeypatch.setattr(context.execution_options, "preserve_order", True)
    monkeypatch.setattr(context, "execution_no_progress_timeout_s", 7)
    one = placements._make_dataset([split_of("a.jsonl")], actors=1)
    ours = one.map_batches(lambda batch: batch).context
    assert not ours.enable_progress_bars
    assert not ours.execution_options.preserve_order
    assert ours.execution_no_progress_timeout_s == 10**9
    theirs = ray.data.range(1).context
    assert theirs.enable_progress_bars
    assert theirs.execution_options.preserve_order
    assert theirs.execution_no_progress_timeout_s == 7
