"""question-answering against the answers of transformers 4.57.6 (tests/references)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pipemill

REFERENCES = Path(__file__).parent.parent.parent / "references"
TRUTH = json.loads((REFERENCES / "question_answering.json").read_text())
MODELS = ("bert", "roberta", "xlnet", "gpt2", "japanese")
PAIR = {"question": TRUTH["questions"]["who"], "context": TRUTH["contexts"]["short"]}
STORY = {"question": TRUTH["questions"]["who"], "context": TRUTH["contexts"]["story"]}


@pytest.fixture(scope="module")
def pipes():
    import torch
    import transformers

    pipemill.restore_pipelines()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for models this small, more only wait for each other
    loaded = {}
    for name in MODELS:
        folder = REFERENCES / "models" / f"question_answering_{name}"
        device = torch.device("cpu")
        loaded[name] = transformers.pipeline("question-answering", model=str(folder), device=device)
    yield loaded
    torch.set_num_threads(threads)


def _texts(kind, names):
    return [TRUTH[kind][name] for name in names] if isinstance(names, list) else TRUTH[kind][names]


def _flat(answers):
    if isinstance(answers, dict):
        return [answers]
    return [one for answer in answers for one in _flat(answer)]


def _assert_equal(got, expected, place):
    """Which spans of score 0 come along is left to numpy, whose choice among equals depends on
    the processor: they are not compared, nor how many of them were the same words."""
    assert type(got) is type(expected), place
    if isinstance(got, list) and any(isinstance(answer, list) for answer in expected):
        assert len(got) == len(expected), place
        for answers, truths in zip(got, expected, strict=True):
            _assert_equal(answers, truths, place)
        return
    zeros = [sum(answer["score"] <= 1e-9 for answer in _flat(some)) for some in (got, expected)]
    assert bool(zeros[0]) == bool(zeros[1]), place
    got, expected = (
        [answer for answer in _flat(some) if answer["score"] > 1e-9] for some in (got, expected)
    )
    assert len(got) == len(expected), place
    for answer, truth in zip(got, expected, strict=True):
        assert answer.keys() == truth.keys()
        assert answer["score"] == pytest.approx(truth["score"], rel=1e-4, abs=1e-5), place
        assert {**answer, "score": 0} == {**truth, "score": 0}, place


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_transformers_4_57(pipes, name):
    cases = [case for case in TRUTH["cases"] if case["model"] == name]
    assert len(cases) > 90
    best = {json.dumps(_flat(case["answers"])[:1]) for case in cases}
    assert len(best) > 50, "the answers hardly differ: a swapped one would go unseen"
    for case in cases:
        question = _texts("questions", case["inputs"]["question"])
        context = _texts("contexts", case["inputs"]["context"])
        got = pipes[name](question=question, context=context, **case["parameters"])
        _assert_equal(got, case["answers"], case)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "japanese"])
def test_answers_are_the_characters_of_the_context(pipes, name):
    for context in TRUTH["contexts"].values():
        answers = pipes[name](question=PAIR["question"], context=context, top_k=20)
        for answer in _flat(answers):
            assert answer["answer"] == context[answer["start"] : answer["end"]]


@pytest.mark.parametrize("case", TRUTH["errors"], ids=lambda case: case["message"][:40])
def test_what_4_57_refuses_is_refused(pipes, case):
    with pytest.raises(Exception) as caught:
        pipes[case["model"]](**case["inputs"], **case["parameters"])
    assert type(caught.value).__name__ == case["error"]


@pytest.mark.parametrize("name", MODELS)
def test_batches_change_no_answer(pipes, name):
    contexts = list(TRUTH["contexts"].values())
    asked = {"question": [PAIR["question"]] * len(contexts), "context": contexts}
    for parameters in ({"top_k": 3}, {"handle_impossible_answer": True, "max_seq_len": 60}):
        single = pipes[name](**asked, **parameters)
        _assert_equal(pipes[name](**asked, **parameters, batch_size=4), single, parameters)


@pytest.mark.parametrize("name", ["bert", "xlnet"])
def test_padding_changes_no_answer(pipes, name):
    plain = pipes[name](**STORY, top_k=3, max_seq_len=80)
    padded = pipes[name](**STORY, top_k=3, max_seq_len=80, padding="max_length")
    _assert_equal(padded, plain, name)


def test_call_forms(pipes):
    pipe = pipes["bert"]
    one, other = pipe(**PAIR), pipe(**STORY)
    assert one != other
    assert pipe([PAIR, STORY]) == [one, other]
    assert pipe(data=[PAIR, STORY]) == pipe(X=[PAIR, STORY]) == [one, other]
    assert pipe(PAIR, STORY) == [one, other]
    assert pipe(PAIR) == pipe([PAIR]) == pipe(PAIR["question"], PAIR["context"]) == one
    example = SimpleNamespace(question_text=STORY["question"], context_text=STORY["context"])
    assert pipe([example, PAIR]) == [other, one]
    assert pipe([example]) == other
    lists = {key: [PAIR[key], STORY[key]] for key in PAIR}
    assert pipe(**lists) == pipe(lists) == [one, other]
    assert list(pipe({**pair, "id": 7} for pair in (PAIR, STORY))) == [one, other]
    assert pipe([]) == []
    made = pipe.create_sample(**PAIR)
    assert pipe([made]) == one
    with pytest.raises(TypeError, match="id"):
        pipe({**PAIR, "id": 7})


def test_deprecated_arguments_warn(pipes):
    with pytest.warns(FutureWarning, match="question="):
        pipes["bert"]([PAIR])
    with pytest.warns(FutureWarning, match="data="):
        pipes["bert"](data=[PAIR])
    with pytest.warns(UserWarning, match="top_k"):
        several = pipes["bert"](**PAIR, topk=2)
    assert several == pipes["bert"](**PAIR, top_k=2)


def test_slow_tokenizers_answer_where_4_57_failed(pipes):
    assert pipes["japanese"](question="Who?", context=" ") == []
    assert len(pipes["japanese"](**PAIR, top_k=100)) > 5


def test_a_question_that_leaves_no_room_is_an_exception(pipes):
    for name in MODELS:
        with pytest.raises(ValueError, match="max_seq_len"):
            pipes[name](**STORY, max_seq_len=8, doc_stride=4)
    for stride in (-1, 400):  # said of the call, not of each text
        with pytest.raises(ValueError, match="`doc_stride`"):
            pipes["bert"]._sanitize_parameters(doc_stride=stride)
    # What needs no second window may leave less room than the windows would share.
    short = pipes["bert"](**PAIR, max_seq_len=48, doc_stride=44)
    assert short == pipes["bert"](**PAIR)


def test_chunks_are_rows_for_a_batch(pipes):
    import torch

    chunks = list(pipes["bert"].preprocess(STORY, max_seq_len=40))
    assert len(chunks) > 3
    assert [chunk["is_last"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [chunk["context"] for chunk in chunks] == [STORY["context"]] + [None] * (len(chunks) - 1)
    for chunk in chunks:
        tensors = {key: value for key, value in chunk.items() if isinstance(value, torch.Tensor)}
        assert set(tensors) == {"input_ids", "attention_mask", "token_type_ids"}
        assert {tensor.shape for tensor in tensors.values()} == {(1, len(chunk["window"].allowed))}


def test_the_span_search_is_that_over_all_spans():
    from pipemill.pipelines.restored.answer_spans import find_best_spans

    random = np.random.default_rng(0)
    for tokens, count, longest in [(5, 3, 2), (30, 12, 15), (30, 1, 4), (60, 200, 7), (8, 5, 50)]:
        start, end = random.random((2, tokens), dtype=np.float32)
        allowed = random.random(tokens) < 0.8
        every = sorted(
            ((start[i] * end[j], i, j) for i in range(tokens) for j in range(tokens)
             if i <= j < i + longest), reverse=True)[:count]  # fmt: skip
        expected = [span for span in every if allowed[span[1]] and allowed[span[2]]]
        firsts, lasts, scores = find_best_spans(start, end, allowed, count, longest)
        assert list(zip(scores, firsts, lasts, strict=True)) == expected


def test_models_get_the_token_types_that_they_had(pipes):
    import transformers
    from pipemill.pipelines.restored.token_type_ids import list_input_names

    with_types = {name for name in MODELS if "token_type_ids" in pipes[name].input_names}
    assert with_types == {"bert", "xlnet", "japanese"}
    config = transformers.DistilBertConfig(dim=8, n_heads=1, n_layers=1, hidden_dim=8)
    distilbert = transformers.DistilBertForQuestionAnswering(config)
    names = list_input_names(pipes["bert"].tokenizer, distilbert)
    assert names == ["input_ids", "attention_mask"]
    pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    albert = transformers.AlbertTokenizer(vocab=[(piece, 0.0) for piece in pieces])
    assert "token_type_ids" not in albert.model_input_names
    assert "token_type_ids" in list_input_names(albert, pipes["bert"].model)


def test_restoring_again_does_nothing(pipes, monkeypatch):
    from transformers import pipelines

    tasks = pipelines.PIPELINE_REGISTRY.supported_tasks
    assert pipemill.restore_pipelines() == []
    monkeypatch.setitem(tasks, "question-answering", {"impl": "theirs"})
    assert pipemill.restore_pipelines() == []
    assert tasks["question-answering"] == {"impl": "theirs"}
    monkeypatch.delitem(tasks, "question-answering")
    monkeypatch.setitem(pipelines.REMOVED_TASKS, "question-answering", "gone")
    assert pipemill.restore_pipelines() == ["question-answering"]
    assert pipelines.check_task("question-answering")[1]["impl"] is type(pipes["bert"])


def test_a_saved_pipeline_is_an_ordinary_folder(pipes, tmp_path):
    import transformers

    pipes["bert"].save_pretrained(tmp_path)
    assert "custom_pipelines" not in json.loads((tmp_path / "config.json").read_text())
    assert not list(tmp_path.glob("*.py"))
    again = transformers.pipeline("question-answering", model=str(tmp_path), device="cpu")
    assert again(**STORY) == pipes["bert"](**STORY)


def test_restoring_is_public_and_costs_nothing_before_it_is_asked_for():
    assert "restore_pipelines" in pipemill.__all__
    code = (
        "import sys, pipemill\n"
        "pipemill.restore_pipelines\n"
        "print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
