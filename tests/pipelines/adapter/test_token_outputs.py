"""Models that answer by token, of many kinds: without padding where they can, and row by row."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

from tests.support import encoders, tiny
from tests.support.row_by_row import assert_rows, run

PACKED = ("Bert", "Roberta", "DistilBert", "ModernBert")
NOT_PACKED = ("MPNet", "DebertaV2")
# Rows of very different length; one that no model can answer.
TEXTS = [
    *tiny.texts(11, seed=3, longest=40),
    "",
    "Anna",
    tiny.sentence(70, seed=5),
    tiny.sentence(50, seed=6),
]
CONTEXTS = [*tiny.texts(9, seed=7, longest=90), "Peter and Mary of Berlin.", "red river"]
QUESTIONS = [*tiny.texts(9, seed=8, longest=8), "who ?", "who ?"]
kinds = pytest.mark.parametrize("kind", PACKED + NOT_PACKED)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    @cache
    def save(kind: str, head: str) -> str:
        folder = tmp_path_factory.mktemp(f"{kind}{head}")
        pipeline = encoders.loaded(kind, head, num_labels=2 if "Question" in head else 5)
        pipeline.model.save_pretrained(folder)
        words = pipeline.tokenizer
        words.model_max_length -= 2  # MPNet has no more positions
        words.save_pretrained(folder)
        return str(folder)

    return save


def both(task, model, columns, kind, parameters=None):
    """The rows in micro-batches of every size, and whether they were packed at the end."""
    batch = run(task, model, columns, parameters, budgets=(70, 1, 1_000_000))
    again = run(task, model, columns, parameters, budgets=(90,))
    assert bool(again.stats["packed_tokens"]) is (kind in PACKED)
    assert again.stats["micro_batches"] < again.stats["chunks"]
    return batch


@kinds
@pytest.mark.parametrize("parameters", [{}, {"aggregation_strategy": "simple", "stride": 4}])
def test_token_classification(saved, kind, parameters):
    import transformers

    model = saved(kind, "ForTokenClassification")
    truth = transformers.pipeline("token-classification", model=model, **parameters)
    batch = both("token-classification", model, {"text": TEXTS}, kind, parameters)
    assert (batch.stats["chunks"] > len(TEXTS)) is ("stride" in parameters), "no windows"
    fields = batch.results.schema.field("entities").type.value_type
    wanted = [fields.field(i).name for i in range(fields.num_fields)]
    expected = [
        {"entities": [{name: e[name] for name in wanted} for e in truth(text)]} if text else None
        for text in TEXTS
    ]
    got = [
        row if text else None for row, text in zip(batch.results.to_pylist(), TEXTS, strict=True)
    ]
    for row in filter(None, expected):
        row["entities"] = [{**e, "score": float(e["score"])} for e in row["entities"]]
    assert_rows_equal(got, expected)


@kinds
def test_fill_mask(saved, kind):
    import transformers

    model = saved(kind, "ForMaskedLM")
    masked = [text.replace(" ", " [MASK] ", 1) for text in TEXTS[:11] if " " in text]
    counts = [1 + i % 4 for i in range(len(masked))]
    truth = transformers.pipeline("fill-mask", model=model)
    columns = {"text": [*masked, "no mask here"], "top_k": [*counts, 1]}
    batch = both("fill-mask", model, columns, kind)
    expected = [
        {"predictions": truth(text, top_k=k)} for text, k in zip(masked, counts, strict=True)
    ]
    assert_rows(batch, [*expected, "expand"])


@kinds
@pytest.mark.parametrize(
    "parameters", [{"max_seq_len": 40, "doc_stride": 8}, {"top_k": 3, "padding": "max_length"}]
)
def test_question_answering(saved, kind, parameters):
    import transformers

    import pipemill

    pipemill.restore_pipelines()
    model = saved(kind, "ForQuestionAnswering")
    truth = transformers.pipeline("question-answering", model=model)
    given = {"max_seq_len": 90, "doc_stride": 16, **parameters}
    columns = {"question": QUESTIONS, "context": CONTEXTS}
    batch = both("question-answering", model, columns, kind, given)
    answers = [
        truth(question=q, context=c, **given) for q, c in zip(QUESTIONS, CONTEXTS, strict=True)
    ]
    ranked = "answers" in batch.results.column_names
    expected = [{"answers": a if isinstance(a, list) else [a]} if ranked else a for a in answers]
    assert_rows(batch, expected)


def test_other_threads_see_the_model_as_ever(saved, monkeypatch):
    """A split is shaped by `postprocess` while another is on the device."""
    import pyarrow as pa
    import transformers
    from pipemill.actors.task import Loaded
    from pipemill.pipelines.loading.make_task import make_adapter
    from pipemill.pipelines.tasks.token_classification import TOKEN_CLASSIFICATION

    pipeline = transformers.pipeline("ner", model=saved("Bert", "ForTokenClassification"))
    loaded = Loaded(pipeline=pipeline, columns=("text",), parameters={})
    task = make_adapter(TOKEN_CLASSIFICATION, loaded)
    model, usual, seen = pipeline.model, type(pipeline)._forward, []

    def spied(self, *args, **keywords):
        seen.append(pipeline.model is model)
        return usual(self, *args, **keywords)

    monkeypatch.setattr(type(pipeline), "_forward", spied)
    chunks = task.expand(pa.table({"text": TEXTS[:5]})).flatten()
    for _ in range(2):  # the first time some run alone
        task.forward(chunks)
    assert all(seen)
    assert len(seen) > 5


def test_a_pipeline_of_the_users_is_never_packed(saved):
    """It may call its model as it likes."""
    import transformers
    from pipemill.actors.task import Loaded
    from pipemill.pipelines.loading.make_task import make_task
    from pipemill.pipelines.tasks.token_classification import TOKEN_CLASSIFICATION

    class Own(transformers.TokenClassificationPipeline):
        pass

    model = saved("Bert", "ForTokenClassification")
    pipeline = transformers.pipeline("ner", model=model, pipeline_class=Own)
    loaded = Loaded(pipeline=pipeline, columns={"text"}, parameters={})
    task = make_task(TOKEN_CLASSIFICATION, loaded)
    assert task.forwards.by_token is None


def assert_rows_equal(got, expected):
    from tests.support.row_by_row import assert_same

    assert_same(got, expected)
    assert len({json.dumps(row, default=str) for row in expected}) > 8
    assert np.isfinite([e["score"] for row in filter(None, got) for e in row["entities"]]).all()


def test_a_model_with_other_outputs_than_tokens_answers_each_text_alone(tmp_path):
    """Perceiver: as many as it has positions, whatever the text's length."""
    import transformers

    words = tiny.tokenizer(encoders.LIMIT)
    config = transformers.PerceiverConfig(
        vocab_size=len(words), max_position_embeddings=encoders.LIMIT, d_model=32, num_latents=8,
        d_latents=32, num_blocks=1, num_self_attends_per_block=1, num_self_attention_heads=4,
        num_cross_attention_heads=4, qk_channels=32, v_channels=32, initializer_range=0.5,
    )  # fmt: skip
    transformers.PerceiverForMaskedLM(config).eval().save_pretrained(tmp_path)
    words.model_input_names = ["input_ids", "attention_mask"]
    words.save_pretrained(tmp_path)
    texts = [f"{tiny.sentence(1 + n % 3, n)} [MASK]" for n in range(20)]
    truth = transformers.pipeline("fill-mask", str(tmp_path))
    batch = run("fill-mask", tmp_path, {"text": texts}, budgets=(1_000_000, 1))
    assert_rows(batch, [{"predictions": truth(text)} for text in texts])
