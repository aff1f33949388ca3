"""Several tasks with equal tokenizers: texts are tokenized once, and answers stay the same."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pipemill.actors.batch import Batch
from pipemill.pipelines.load_cascade import LoadCascade, LoadStep
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask
from pipemill.pipelines.text.shared_words import share_words
from pipemill.pipelines.text.word_table import WordTable

from tests.support import tiny

COLUMNS = (("text", "text"),)
SCHEMA = pa.schema([("text", pa.string())])


@pytest.fixture
def loads(models):
    tasks = ("text-classification", "feature-extraction", "feature-extraction")
    return [
        LoadTask(task=task, model=Model(path=models[task]), columns=COLUMNS, max_tokens=512)
        for task in tasks
    ]


def cascade(loads):
    wheres = [None, "a_score > 0.7", None]
    steps = [
        LoadStep(name=name, prefix=f"{name}_", where=where, load=load)
        for name, where, load in zip("abc", wheres, loads, strict=True)
    ]
    return LoadCascade(steps=tuple(steps), schema=SCHEMA.serialize().to_pybytes())()


def rows(seed):
    random.seed(seed)
    words = [word for word in sorted(tiny.tokenizer(64).get_vocab()) if word.isalpha()]
    texts = [" ".join(random.choices(words, k=random.randint(0, 90))) for _ in range(30)]
    return pa.table({"text": [*texts, *texts[:5], "a\vb", "[SEP] mill", "mill\u0301"]})


def test_each_text_is_tokenized_once_and_answers_stay(loads, monkeypatch):
    asked = []
    tokenize = WordTable.tokenize
    monkeypatch.setattr(
        WordTable,
        "tokenize",
        lambda self, texts: asked.append(len(texts)) or tokenize(self, texts),
    )
    tasks = cascade(loads)
    asked.clear()  # while it was loaded
    results = [tasks.process(Batch(rows(seed))).results for seed in (1, 2)]
    assert asked == [38, 38]
    for seed, found in zip((1, 2), results, strict=True):
        alone = [load().process(Batch(rows(seed))).results for load in loads]
        passed = pc.greater(alone[0]["score"], 0.7)
        assert 0 < pc.sum(passed).as_py() < 38
        assert found["a_label"].equals(alone[0]["label"])
        vectors = found["b_embedding"].filter(passed).to_pylist()
        for got, wanted in zip(
            vectors, alone[1]["embedding"].filter(passed).to_pylist(), strict=True
        ):
            assert got == pytest.approx(wanted, abs=1e-5)
        for got, wanted in zip(found["c_embedding"], alone[2]["embedding"], strict=True):
            assert got.as_py() == pytest.approx(wanted.as_py(), abs=1e-5)


def test_the_shared_table_leaves_the_tokenizers_of_tasks_as_they_are(loads):
    """Another thread may call one of them meanwhile."""
    tasks = [load().task for load in loads]
    share_words(tasks)
    backends = [task.window_tokenizer.tokenizer.backend_tokenizer for task in tasks]
    for backend in backends:
        backend.enable_truncation(5)
    for task in tasks:
        assert task.window_tokenizer.words.tokenize(pa.array(["a new word", "mills"])).known.any()
    assert [backend.truncation["max_length"] for backend in backends] == [5, 5, 5]


def test_tokenizers_that_differ_share_nothing(loads, tmp_path):
    folder = tiny.save(tmp_path / "other", "Model")
    words = tiny.tokenizer(64)
    words.add_tokens(["millwheel"])
    words.save_pretrained(folder)
    other = LoadTask(
        task="feature-extraction",
        model=Model(path=str(folder)),
        columns=loads[0].columns,
        max_tokens=512,
    )
    first, second, third = (
        step.stages.task.window_tokenizer.words
        for step in cascade([loads[0], other, loads[1]])._by_name.values()
    )
    assert first is third is not second
