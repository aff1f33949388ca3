"""A loaded pipeline, or a loaded model and its tokenizer, as a job's model."""

from __future__ import annotations

import copy
import functools
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from pipemill.actors.output.layout import STATE, STORED_MODEL
from pipemill.jobs.config.loaded_model import LoadedModel
from pipemill.jobs.prepare import prepare_without_output

import pipemill
from tests.support import tiny
from tests.support.own_pipelines import Louder, PairPipeline

TEXTS = tiny.texts(8, seed=5, longest=20)


def make(models, task="text-classification", **more):
    return transformers.pipeline(task, model=models[task], device="cpu", **more)


@pytest.fixture
def job(tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "in.parquet")
    return {
        "input": str(tmp_path / "in.parquet"),
        "output": str(tmp_path / "out"),
        "actors": {"placement": "local"},
    }


def scores(answers):
    return pytest.approx([answer["score"] for answer in answers], abs=1e-5)


def stored(tmp_path):
    folder = tmp_path / "out" / STORED_MODEL
    return sorted(folder.iterdir()) if folder.exists() else []


def change(model):
    with torch.no_grad():
        model.classifier.weight.mul_(-1)


def test_a_pipeline_is_a_job_of_its_task_and_weights(models, job, tmp_path):
    pipeline = make(models)
    change(pipeline.model)  # there is no folder of these weights
    report = pipemill.run(**job, model=pipeline).to_arrow().to_pydict()
    plain = pipeline(TEXTS)
    assert report["label"] == [answer["label"] for answer in plain]
    assert report["score"] == scores(plain)
    assert report["label"] != [answer["label"] for answer in make(models)(TEXTS)]
    (folder,) = stored(tmp_path)
    assert pipeline.device.type == "cpu"

    # The same weights are the same job: again, loaded again, and as the folder that holds them.
    again = transformers.pipeline("text-classification", model=str(folder), device="cpu")
    for model in (pipeline, again, {"model": again.model, "tokenizer": again.tokenizer}, folder):
        more = {} if model in (pipeline, again) else {"task": "text-classification"}
        assert pipemill.run(**job, **more, model=model).added["rows"] == 0
    assert pipemill.retry(**job, model=pipeline).added["rows"] == 0
    assert stored(tmp_path) == [folder]
    written = json.loads((tmp_path / "out" / STATE / "job.json").read_text())["job"]
    assert (written["task"], written["model"]["path"]) == ("text-classification", str(folder))

    with pytest.raises(pipemill.ConfigError) as caught:
        pipemill.run(**job, model=make(models))
    assert "holds the results of another job: model (" in str(caught.value)
    assert f"{folder}, digest {folder.name} then, the loaded BertForSequence" in str(caught.value)
    assert stored(tmp_path) == [folder]

    shutil.move(tmp_path / "out", tmp_path / "moved")
    assert pipemill.verify(tmp_path / "moved", sample=4).ok


def test_a_model_and_its_tokenizer_resume_what_a_folder_began(models, job, tmp_path):
    folder = models["text-classification"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    parts = {"model": model, "tokenizer": transformers.AutoTokenizer.from_pretrained(folder)}
    first = pipemill.run(**job, task="text-classification", model={**parts, "dtype": "float32"})
    assert first.to_arrow()["label"].to_pylist() == [a["label"] for a in make(models)(TEXTS)]
    made = pipemill.Job(**job, task="text-classification", model=parts)
    assert isinstance(made.model.path, LoadedModel)
    assert "BertForSequenceClassification" in repr(made)
    again = pipemill.run(made, settings=["model.dtype=float32", "input.limit=null"])
    assert again.added["rows"] == 0


def test_no_verb_but_run_writes_and_each_takes_a_pipeline(models, job, tmp_path):
    pipeline = make(models)
    change(pipeline.model)
    plain = pipeline(TEXTS)
    shown = pipemill.preview(**job, model=pipeline, rows=8).table.to_pydict()
    assert (shown["label"], shown["score"]) == ([a["label"] for a in plain], scores(plain))
    assert pipemill.plan(**job, model=pipeline, rows=4, seconds=0.01).rows == 8
    tuning = pipemill.tune(
        **job, model=pipeline, rows=2, seconds=0.01, plot=str(tmp_path / "plot.png")
    )
    assert tuning.model == "the loaded BertForSequenceClassification"
    assert not (tmp_path / "out").exists()


def test_apply_takes_a_pipeline(models, ray_session):
    import ray

    pipeline = make(models, top_k=2)
    change(pipeline.model)
    dataset = ray.data.from_arrow(pa.table({"text": TEXTS}))
    rows = pipemill.apply(dataset, model=pipeline, actors={"num_cpus": 1}).take_all()
    assert [row["labels"] for row in rows] == [
        [answer["label"] for answer in answers] for answers in pipeline(TEXTS)
    ]


def test_parameters_of_the_pipeline_are_taken_over(models, job):
    pipeline = make(models, top_k=2, function_to_apply="sigmoid", batch_size=4)
    prepared = prepare_without_output(pipemill.Job(**job, model=pipeline))
    assert prepared.job.parameters == {"top_k": 2, "function_to_apply": "sigmoid"}
    rows = pipemill.preview(**job, model=pipeline, rows=8).table
    assert rows["scores"].to_pylist() == [scores(answers) for answers in pipeline(TEXTS)]
    # The job's own win.
    rows = pipemill.preview(**job, model=pipeline, parameters={"top_k": 1}).table
    assert "label" in rows.column_names

    ner = make(models, "token-classification", aggregation_strategy="simple")
    rows = pipemill.preview(**job, model=ner, rows=8).table.to_pydict()
    words = [[entity["word"] for entity in entities] for entities in rows["entities"]]
    assert words == [[entity["word"] for entity in entities] for entities in ner(TEXTS)]
    assert any(words)

    made = make(models, "text-generation", max_new_tokens=3, return_full_text=False)
    made.model.generation_config.do_sample = False
    assert pipemill.Job(**job, model=made).parameters == {
        "max_new_tokens": 3, "return_full_text": False,
    }  # fmt: skip
    rows = pipemill.preview(**job, model=made, rows=2).table
    assert rows["generated_text"].to_pylist() == [
        made(text)[0]["generated_text"] for text in TEXTS[:2]
    ]


def test_a_users_class_is_imported_by_workers(models, job):
    own = transformers.pipeline(
        "text-classification", model=models["text-classification"], pipeline_class=Louder
    )
    rows = pipemill.preview(**job, model=own, rows=8).table
    assert rows["label"].to_pylist() == [a["label"] for a in own(TEXTS)]
    assert all(label.isupper() for label in rows["label"].to_pylist())
    pair = PairPipeline(own.model, own.tokenizer, task="pair", device="cpu", second_text="a mill")
    made = pipemill.Job(**job, model=pair)
    assert made.pipeline_class == "tests.support.own_pipelines:PairPipeline"
    assert (made.task, made.parameters) == ("pair", {"second_text": "a mill"})


def test_a_class_of_a_program_is_refused(models, job):
    """Workers can't import it from there."""
    base = transformers.TextClassificationPipeline
    mine = type("Mine", (base,), {"__module__": "__main__"})
    with pytest.raises(pipemill.ConfigError, match="pipeline's class Mine is defined in __main__"):
        pipemill.preview(model=make(models, pipeline_class=mine), input=job["input"])


class Other(transformers.BertForSequenceClassification):
    """Another model than what its files would bring back."""


def test_what_files_would_not_bring_back_is_refused(models, job):
    pipeline = make(models)

    def refused(model, **more):
        with pytest.raises(pipemill.ConfigError) as caught:
            pipemill.preview(**{**job, **more}, model=model)
        return str(caught.value)

    other = copy.copy(pipeline)
    other.model = Other(pipeline.model.config)
    assert "would load another class from its files" in refused(other)
    assert "alone can't read rows: its tokenizer or processor is" in refused(pipeline.model)
    assert "give no other" in refused({"model": pipeline, "tokenizer": pipeline.tokenizer})
    assert "both a path, 'm', and a loaded model" in refused({"model": pipeline, "path": "m"})
    assert "task is fill-mask, and the pipeline (model) is one for text-classification" in refused(
        pipeline, task="fill-mask"
    )
    parts = {"model": pipeline.model, "tokenizer": pipeline.tokenizer}
    assert "'task' is missing in the job" in refused(parts)
    assert refused(parts, task="fill-mask").startswith("the loaded BertForSequenceClassification")
    helped = copy.copy(pipeline)
    helped.assistant_model = pipeline.model
    assert "has an assistant_model, which pipemill can't use" in refused(helped)
    helped = copy.copy(pipeline)
    helped.__class__ = type("Remote", (type(pipeline),), {"__module__": "transformers_modules.a.b"})
    assert "class Remote comes from code in its model's folder: name that folder" in refused(helped)
    made = make(models, return_tensors="np")
    assert "was made with return_tensors, which pipemill can't take over" in refused(made)
    generation = transformers.GenerationConfig(max_new_tokens=2)
    made = make(models, "text-generation", generation_config=generation)
    assert "was made with generation_config" in refused(made)
    assert refused({"model": "a folder"}).startswith("model.model is a str, and no loaded model")


def test_what_was_given_to_an_object_alone_is_refused(models, job):
    pipeline = make(models)
    pipeline(TEXTS[0], top_k=None)  # transformers may leave hooks of its own

    def refused(model):
        with pytest.raises(pipemill.ConfigError, match=r"\(docs/own-pipelines.md\)") as caught:
            pipemill.preview(**job, model=model)
        return str(caught.value)

    usual = pipeline.model.forward
    hook = pipeline.model.classifier.register_forward_hook(lambda model, given, out: out * 2)
    assert refused(pipeline).startswith("classifier in the loaded BertForSequenceClassification")
    hook.remove()
    for wrap in (functools.wraps(usual), torch.no_grad()):
        pipeline.model.forward = wrap(lambda *given, **named: usual(*given, **named))
        assert refused(pipeline).startswith("the model in the loaded BertForSequenceClassification")
    del pipeline.model.forward
    pipeline.postprocess = lambda out, **named: [{"label": "x", "score": 1.0}]
    assert "was given another postprocess than its class has" in refused(pipeline)
    del pipeline.postprocess
    pipemill.preview(**job, model=pipeline)


def test_what_torch_or_accelerate_put_around_a_forward_is_no_change(models, job):
    pipeline = make(models)
    usual = pipeline.model.forward
    placed = functools.partial(torch.nn.Module.__call__, pipeline.model)
    for forward in (
        torch.compile(usual),
        torch.no_grad()(usual),
        functools.update_wrapper(placed, usual),  # as accelerate does
    ):
        pipeline.model.forward = forward
        pipemill.preview(**job, model=pipeline)


def test_what_is_no_mapping_of_loaded_parts_is_one_line(models, job):
    pipeline = make(models)
    module = type("Linear", (torch.nn.Identity,), {"__module__": "torch.ao.nn.quantized"})
    quantized = copy.deepcopy(pipeline.model)
    quantized.classifier = module()
    for model, message in (
        ((pipeline.model, pipeline.tokenizer), "model is a tuple with a loaded model: give model="),
        ([pipeline.model], "model is a list with a loaded model: give model={'model': model, "),
        (pipeline.tokenizer, "'model' must hold keys, not a TokenizersBackend"),
        (transformers.pipeline, "'model' must hold keys, not a function: call it, and give wha"),
        ({"model": pipeline.model, "tokenizer": "a folder"}, "model.tokenizer is a str: give the"),
        (
            {"model": copy.deepcopy(pipeline.model).to("meta"), "tokenizer": pipeline.tokenizer},
            "weights of the loaded BertForSequenceClassification are on the device meta",
        ),
        (
            {"model": quantized, "tokenizer": pipeline.tokenizer},
            "the loaded BertForSequenceClassification holds modules that torch quantized",
        ),
    ):
        with pytest.raises(pipemill.ConfigError) as caught:
            pipemill.preview(**job, task="text-classification", model=model)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_a_model_that_can_not_be_saved_is_named(models, job, monkeypatch):
    pipeline = make(models)
    pipeline.tokenizer.save_pretrained = None
    with pytest.raises(pipemill.ConfigError, match="can't save the loaded BertFor.*TMPDIR"):
        pipemill.preview(**job, model=pipeline)
