"""What `pipemill tune` counts, against counting by hand and against what the model was given."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipemill.jobs import tune
from pipemill.jobs.cli.app import main
from pipemill.jobs.config.load import build_job
from pipemill.jobs.measuring import benchmark
from pipemill.jobs.measuring.benchmark import Measurement, find_best
from pipemill.jobs.measuring.plot import draw_plot
from pipemill.jobs.measuring.trial import start_trial
from pipemill.pipelines.reference.in_batches import PlainBatches

import pipemill
from tests import references
from tests.support import tiny

TEXTS = tiny.texts(40, seed=5, longest=40)
TEXTS[7] = TEXTS[3]
SHORT, LONG = 0.01, 1000.0


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rows = pa.table({"body": TEXTS, "labels": [["mill", "river"]] * len(TEXTS)})
    pq.write_table(rows.slice(0, 24), folder / "a.parquet")
    pq.write_table(rows.slice(24), folder / "b.parquet")
    return folder


def job(models, data, task="text-classification", **sections):
    wanted = {"task": task, "model": models[task], "input": str(data)}
    wanted |= {"output": str(data.parent / "out"), **sections}
    return build_job(wanted, [], {"text": "body"}, {})


def lengths(model) -> np.ndarray:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    return np.array([len(ids) for ids in tokenizer(TEXTS)["input_ids"]])


def padded(sizes: np.ndarray, batch_size: int) -> int:
    cuts = [sizes[i : i + batch_size] for i in range(0, len(sizes), batch_size)]
    return sum(len(cut) * int(cut.max()) for cut in cuts)


@pytest.fixture
def seen(monkeypatch):
    """Shapes of what models are given."""
    import transformers

    shapes = []
    forward = transformers.BertModel.forward

    def noted(self, input_ids=None, **others):
        shapes.append(tuple(input_ids.shape))
        return forward(self, input_ids=input_ids, **others)

    monkeypatch.setattr(transformers.BertModel, "forward", noted)
    return shapes


def test_transformers_gets_the_rows_in_order_in_batches_of_that_size(models, data, seen):
    trial = start_trial(job(models, data), 100)
    sizes = lengths(models["text-classification"])
    for batch_size in (1, 8, 64):
        seen.clear()
        (setting,) = benchmark.measure_transformers(trial, [batch_size], LONG)
        assert seen == [
            (len(cut), cut.max())
            for cut in (sizes[i : i + batch_size] for i in range(0, 40, batch_size))
        ]
        assert (setting.tokens, setting.padded_tokens) == (sizes.sum(), padded(sizes, batch_size))
        assert setting.padding == 1 - sizes.sum() / padded(sizes, batch_size)
        assert setting.measured == 1
        assert setting.problem is None
        assert setting.rows_per_second * setting.seconds == pytest.approx(40)
        assert setting.tokens_per_second * setting.seconds == pytest.approx(sizes.sum())


@pytest.mark.parametrize(
    ("task", "parameters"),
    [
        ("text-classification", {"top_k": 2, "stride": 3, "window_pooling": "max"}),
        ("feature-extraction", {"normalize": True}),
        ("zero-shot-classification", {"candidate_labels": ["mill", "river"]}),
        ("token-classification", {"aggregation_strategy": "simple"}),
    ],
)
def test_its_answers_are_those_of_transformers(models, data, task, parameters):
    """The parameters arrive as a user would give them, whatever the batch size."""
    import torch
    import transformers

    trial = start_trial(job(models, data, task, parameters=parameters), 12)
    pipe = transformers.pipeline(task, model=models[task], device="cpu")
    ours = {"stride", "window_pooling", "normalize"}
    given = {k: v for k, v in parameters.items() if k not in ours}
    if task == "feature-extraction":
        given["return_tensors"] = True
    with trial.padding():
        plain = PlainBatches(trial.prepared.load.spec(), trial.loaded)
        got = list(plain.answers(trial.rows, 1))
    expected = [pipe(text, **given) for text in trial.rows["text"].to_pylist()]
    assert len({str(answer) for answer in expected}) > 6
    if task == "feature-extraction":
        assert all(map(torch.allclose, got, expected))
        return
    assert json.dumps(got, default=float) == json.dumps(expected, default=float)


def test_sorted_and_packed_cost_what_the_model_is_given(models, data, seen):
    trial = start_trial(job(models, data), 100)
    assert trial.packs
    sizes = np.delete(lengths(models["text-classification"]), 7)  # the same as another row
    for packed in (False, True):
        seen.clear()
        setting = benchmark.measure_budget(trial, 128, packed, LONG)
        assert setting.how == ("packed" if packed else "sorted")
        assert setting.tokens == sizes.sum()
        assert setting.padded_tokens == sum(rows * width for rows, width in seen)
        assert all(rows * width <= 128 for rows, width in seen)
        assert {rows for rows, _ in seen} == ({1} if packed else {rows for rows, _ in seen})
        assert packed == (setting.padding == 0)
        assert setting.measured == 1
        assert setting.seconds > 0
    assert trial.stages.task.packed, "as it was"
    assert trial.loaded.pipeline.model.config._attn_implementation == "pipemill_packed"


def test_padded_answers_within_the_context_and_packed_ones_without(models, data):
    trial = start_trial(job(models, data), 8)
    model = trial.loaded.pipeline.model
    few = trial.chunks.slice(0, 5)
    packed = trial.stages.task.forward(few)
    with trial.padding():
        assert not trial.packs
        assert model.config._attn_implementation != "pipemill_packed"
        padded = trial.stages.task.forward(few)
    vectors = [np.array(a.field("vector").to_pylist()) for a in (packed, padded)]
    assert np.allclose(*vectors, atol=1e-4)


def test_a_setting_that_is_stopped_is_reckoned(models, data):
    trial = start_trial(job(models, data), 100)
    sizes = lengths(models["text-classification"])
    (plain,) = benchmark.measure_transformers(trial, [8], 1e-9)
    assert plain.measured == sizes[:8].max() * 8 / padded(sizes, 8)
    ours = benchmark.measure_budget(trial, 64, False, 1e-9)
    assert 0 < ours.measured < 0.5
    assert plain.rows_per_second > 0 < ours.rows_per_second
    _, line = str(tune.format_settings([plain])).splitlines()
    assert "≈" in line


def test_a_batch_that_would_take_too_long_is_not_begun(models, data, monkeypatch):
    trial = start_trial(job(models, data), 100)
    begun = []
    answers = PlainBatches.answers

    def noted(self, rows, batch_size):
        begun.append(batch_size)
        return answers(self, rows, batch_size)

    monkeypatch.setattr(PlainBatches, "answers", noted)
    first, second = benchmark.measure_transformers(trial, [1, 64], 1e-9)
    assert begun == [1]
    assert (first.measured > 0, second.measured) == (True, 0)
    # The same pace for each token, padding included.
    assert second.seconds / second.padded_tokens == pytest.approx(
        first.seconds / first.padded_tokens
    )


def test_rows_with_parameters_of_their_own_are_no_call_of_transformers(models, data):
    wanted = job(models, data, "zero-shot-classification")
    wanted = build_job(wanted, [], {"text": "body", "candidate_labels": "labels"}, {})
    trial = start_trial(wanted, 8)
    (setting,) = benchmark.measure_transformers(trial, [8], LONG)
    assert (setting.rows_per_second, setting.tokens) == (None, 0)
    assert "candidate_labels" in setting.problem
    assert benchmark.measure_budget(trial, 512, False, LONG).tokens == trial.sizes.sum()


def test_rows_with_questions_of_their_own_are_compared(tmp_path):
    texts = [text for text in TEXTS if text.strip()][:8]
    rows = pa.table({"question": [text[:12] for text in texts], "context": texts})
    pq.write_table(rows, tmp_path / "in.parquet")
    task = "question-answering"
    model = Path(references.__file__).parent / "models" / "question_answering_bert"
    sections = {"task": task, "model": str(model), "input": str(tmp_path / "in.parquet")}
    trial = start_trial(build_job({**sections, "output": str(tmp_path / "out")}, [], {}, {}), 8)
    (setting,) = benchmark.measure_transformers(trial, [8], LONG)
    assert setting.problem is None
    assert setting.rows_per_second > 0


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Unloadable", pipemill.ConfigError, "loading failed: .*no such licence.*the model is"),
        (
            "Unreadable",
            pipemill.RunError,
            "none of the rows could be expanded: ValueError: no word",
        ),
        ("Unanswered", pipemill.RunError, "no row could be computed: ValueError: no layer is left"),
    ],
)
@pytest.mark.parametrize("verb", [pipemill.tune, pipemill.plan])
def test_a_pipeline_that_computes_nothing_is_an_error(models, data, verb, name, error, message):
    wanted = {"task": "own", "pipeline_class": f"tests.support.own_pipelines:{name}"}
    wanted |= {
        "model": models["text-classification"],
        "input": str(data),
        "columns": {"text": "body"},
    }
    with pytest.raises(error, match=message) as raised:
        verb(**wanted, rows=8, seconds=SHORT)
    assert "\n" not in str(raised.value)
    assert not list(data.parent.glob("*.png"))


def test_memory_that_runs_out_is_said(models, data, monkeypatch):
    trial = start_trial(job(models, data), 8)

    def full(chunks):
        raise MemoryError

    monkeypatch.setattr(trial.stages.task, "forward", full)
    setting = benchmark.measure_budget(trial, 512, True, LONG)
    assert (setting.problem, setting.seconds) == ("out of memory", None)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures it")
def test_peak_memory_is_what_was_taken_and_given_back():
    from pipemill.jobs.measuring.peak_memory import PeakMemory

    with PeakMemory(None) as large:
        np.ones(2**26 // 8).sum()
    with PeakMemory(None) as small:
        np.ones(2**20 // 8).sum()
    if large.bytes is None:
        pytest.skip("not allowed here")
    assert 2**26 * 0.9 < large.bytes < 2**26 * 1.5
    assert small.bytes < 2**24


def ran(how, size, rate, problem=None):
    return benchmark.Measurement(how=how, size=size, rows_per_second=rate, problem=problem)


def test_the_smallest_of_the_fastest_budgets_is_recommended():
    padded = [ran("sorted", 512, 50.0), ran("sorted", 1024, 99.0), ran("sorted", 2048, 100.0)]
    assert benchmark.find_best_budget([ran("transformers", 1, 500.0), *padded]) == 1024
    # A run packs where it can.
    assert (
        benchmark.find_best_budget([*padded, ran("packed", 512, 90.0), ran("packed", 1024, 60.0)])
        == 512
    )
    assert benchmark.find_best_budget([ran("sorted", 512, None, "out of memory")]) is None


def flags(models, data) -> list[str]:
    model = models["text-classification"]
    return ["--task", "text-classification", "--model", model, "--input", str(data),
            "--output", str(data.parent / "out"), "--column", "text=body"]  # fmt: skip


def test_the_verb_ends_in_json_writes_a_plot_and_nothing_else(models, data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["tune", *flags(models, data), "--seconds", "0.05"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert (found["rows"], found["failed"]) == (40, 0)
    budget = found["recommended"]["batching"]["max_tokens"]
    assert err.rstrip().endswith(f"batching: {{max_tokens: {budget}}}")
    assert {s["how"] for s in found["settings"]} == {"transformers", "sorted", "packed"}
    assert [s["size"] for s in found["settings"]][:4] == tune.BATCH_SIZES
    assert found["plot"] == str(tmp_path / "tune.png")
    assert (tmp_path / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "tune.png"]


def test_the_output_of_another_job_is_neither_in_the_way_nor_touched(models, data, tmp_path):
    wanted = job(models, data, actors={"placement": "local"})
    pipemill.run(wanted)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    other = build_job(wanted, [], {}, {"parameters": {"top_k": 2}})
    found = tune.tune(other, rows=8, seconds=SHORT, plot=tmp_path / "other.svg")
    assert found.rows == 8
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_plot_names_the_job_marks_what_to_use_and_hatches_estimates(tmp_path, share):
    matplotlib = pytest.importorskip("matplotlib")
    settings = [
        Measurement(how=how, size=size, measured=done, seconds=1, rows_per_second=rate)
        for how, size, done, rate in (
            ("packed", 1024, 1.0, 99.0), ("packed", 512, 1.0, 98.0), ("transformers", 1, share, 5.0)
        )
    ]  # fmt: skip
    assert find_best(settings) is settings[1], "the smallest of the fastest"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_plot(settings, str(tmp_path / "a.svg"), "fill-mask, bert, 40 rows")
    drawn = (tmp_path / "a.svg").read_text()
    for text in ("fill-mask, bert, 40 rows", "recommended", "packed, max_tokens=512", "rows/s"):
        assert f">{text}</text>" in drawn
    assert ("<pattern" in drawn) == (">an estimate</text>" in drawn) == (share < 1)
    assert len(re.findall("font-weight: (?:bold|700)|font: (?:bold|700) ", drawn)) == 1
    assert len(re.findall('stroke-width: 2[;"]', drawn)) == 3, "two bars and the legend"


def test_without_matplotlib_a_plot_names_the_extra(models, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipemill.jobs.measuring.plot.find_spec", lambda name: None)
    words = [*flags(models, data), "--seconds", "0.01", "--rows", "4"]
    assert main(["tune", *words, "--plot", str(tmp_path / "a.png")]) == 2
    assert "pipemill[plot]" in capsys.readouterr().err
    assert main(["tune", *words]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["plot"] is None
    assert "pipemill[plot]" in err


def test_wrong_flags_are_said_before_anything_is_loaded(
    models, data, tmp_path, capsys, monkeypatch
):
    words = flags(models, data)
    assert main(["tune", *words, "--plot", str(tmp_path / "no/a.png")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert main(["tune", *words, "--plot", str(tmp_path / "a.txt")]) == 2
    assert "must end in one of .png" in capsys.readouterr().err
    (tmp_path / "b.png").mkdir()
    assert main(["tune", *words, "--plot", str(tmp_path / "b.png")]) == 2
    assert "b.png: it is a folder; name a file in it" in capsys.readouterr().err
    # Not by its permissions: root may write anywhere.
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: path != tmp_path)
        assert main(["tune", *words, "--plot", str(tmp_path / "a.png")]) == 2
    said = capsys.readouterr().err
    assert f"can't write the plot {tmp_path}/a.png: {tmp_path} can't be written to" in said
    assert "measured" not in said
    for wrong in (["--seconds", "0"], ["--rows", "none"]):
        assert main(["tune", *words, *wrong]) == 2
        assert "not '" in capsys.readouterr().err


def test_the_command_line_imports_nothing_heavy_for_help():
    import subprocess

    code = (
        "import sys; from pipemill.jobs.cli import app; app.main(['--help'])\n"
        "print({'matplotlib', 'numpy', 'pyarrow', 'pydantic', 'rich', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_what_was_run_is_reckoned_up_to_the_whole():
    watch = benchmark.Stopwatch(np.array([30, 10]), LONG)
    assert not watch.record(0)
    assert watch.measured == 0.75
    assert watch.seconds() == watch.elapsed / 0.75
    assert benchmark.Stopwatch(np.array([1]), 0).record(0)


@pytest.mark.parametrize(("name", "kind"), [("a.png", "image/png"), ("a.pdf", None)])
def test_in_python_it_takes_what_run_takes_and_shows_its_plot(models, data, tmp_path, name, kind):
    pytest.importorskip("matplotlib")
    found = pipemill.tune(
        task="text-classification",
        model=models["text-classification"],
        input=str(data),
        columns={"text": "body"},
        rows=4,
        seconds=SHORT,
        plot=tmp_path / name,
    )
    assert (found.rows, found.plot) == (4, str(tmp_path / name))
    assert found.max_tokens in {setting.size for setting in found.settings}
    page = found._repr_html_()
    assert "transformers, batch_size=8" in page
    if kind is None:
        assert "<img" not in page
    else:
        data = base64.b64encode((tmp_path / name).read_bytes()).decode()
        assert f"<img src='data:{kind};base64,{data}'>" in page
        (tmp_path / name).unlink()
        assert "<img" not in found._repr_html_()
