"""Tasks that write, one row at a time against plain `transformers.pipeline`.

The tasks that transformers 5 removed are compared with the answers of 4.57.6 (tests/references).
"""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pytest
import transformers
from pipemill.actors.batch import Batch
from pipemill.pipelines.loading.model import Model
from pipemill.pipelines.loading.task_loader import LoadTask

import pipemill
from tests.support import tiny
from tests.support.restored_cases import REFERENCES
from tests.support.row_by_row import assert_rows, run

TEXTS = [tiny.sentence(words, words) for words in (1, 9, 3, 9, 30)] + ["日本 ! \x00", "mill"]
CHATS = [
    [{"role": "user", "content": "the mill ?"}],
    [
        {"role": "system", "content": "be quick"},
        {"role": "user", "content": tiny.sentence(20, 1)},
        {"role": "assistant", "content": "it is ."},
        {"role": "user", "content": "and Anna ?"},
    ],
    [{"role": "user", "content": "is it warm ?"}, {"role": "assistant", "content": "the bread"}],
]
SHORT = {"max_new_tokens": 6, "do_sample": False}


@lru_cache(maxsize=4)
def plain(task, model):
    return transformers.pipeline(task, model=model, device="cpu")


@pytest.mark.parametrize(
    "parameters",
    [
        {"do_sample": False},
        {**SHORT, "return_full_text": False},
        {"generate_kwargs": {**SHORT, "num_beams": 2}},
        {**SHORT, "max_new_tokens": 12, "stop_sequence": "r"},
        {**SHORT, "prefix": "to Berlin : ", "handle_long_generation": "hole"},
    ],
)
def test_text_generation(models, parameters):
    task = "text-generation"
    truth = plain(task, models[task])
    given = {**parameters, **parameters.get("generate_kwargs", {})}
    given.pop("generate_kwargs", None)
    expected = [{"generated_text": truth(t, **given)[0]["generated_text"]} for t in TEXTS]
    assert_rows(run(task, models[task], {"text": TEXTS}, parameters), expected, 6)


@pytest.mark.parametrize("wanted", [None, 1])
def test_a_folder_may_want_several_texts(models, tmp_path, wanted):
    task = "text-generation"
    folder = Path(shutil.copytree(models[task], tmp_path / "model"))
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"num_beams": 2, "num_return_sequences": 2}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    given = {**SHORT, **({} if wanted is None else {"num_return_sequences": wanted})}
    truth = transformers.pipeline(task, model=str(folder), device="cpu")
    expected = [[answer["generated_text"] for answer in truth(t, **given)] for t in TEXTS]
    batch = run(task, folder, {"text": TEXTS}, given)
    if wanted is None:
        assert_rows(batch, [{"generated_texts": texts} for texts in expected], 6)
    else:
        assert_rows(batch, [{"generated_text": text} for (text,) in expected], 6)


@pytest.mark.parametrize("place", ["parameter", "generate_kwargs", "column", "folder"])
def test_texts_end_at_stop_strings(models, tmp_path, place):
    """The tokenizer that `generate` asks for is given wherever they come from."""
    task, stop = "text-generation", {"stop_strings": ["a", "e"]}
    folder, long = Path(shutil.copytree(models[task], tmp_path / "model")), {**SHORT}
    long |= {"max_new_tokens": 12}
    truth = plain(task, models[task])
    expected = [
        {"generated_text": truth(t, **long, **stop, tokenizer=truth.tokenizer)[0]["generated_text"]}
        for t in TEXTS
    ]
    assert expected[1]["generated_text"] != truth(TEXTS[1], **long)[0]["generated_text"]
    columns, given = {"text": TEXTS}, {**long}
    if place == "parameter":
        given |= stop
    elif place == "generate_kwargs":
        given = {"generate_kwargs": {**long, **stop}}
    elif place == "column":
        columns |= {"stop_strings": [stop["stop_strings"]] * len(TEXTS)}
    else:
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **stop}))
    assert_rows(run(task, folder, columns, given), expected, 6)


def test_the_end_of_a_prompt_is_healed(models):
    """`generate` asks for the tokenizer, which nobody can give in a job."""
    task, given = "text-generation", {**SHORT, "token_healing": True}
    truth = plain(task, models[task])
    texts = [*TEXTS, "the mi"]
    expected = [truth(t, **given, tokenizer=truth.tokenizer)[0] for t in texts]
    assert expected[-1] != truth(texts[-1], **SHORT)[0]
    assert_rows(run(task, models[task], {"text": texts}, given), expected, 6)


def test_what_is_sampled_is_the_same_in_every_run_and_every_micro_batch(models):
    import torch

    def sampled(**parameters):
        return run("text-generation", models["text-generation"], {"text": TEXTS}, parameters)

    batch = sampled(max_new_tokens=6)
    before = torch.random.get_rng_state()
    again = sampled(max_new_tokens=6)
    assert torch.equal(before, torch.random.get_rng_state()), "the process has its own numbers"
    assert batch.results.equals(again.results)
    assert not batch.results.equals(sampled(**SHORT).results)
    found = [one["generated_text"] for one in batch.results.to_pylist()]
    assert len(set(found)) == len(set(TEXTS))


def test_several_sequences_of_a_text(models):
    task, parameters = "text-generation", {**SHORT, "num_beams": 3, "num_return_sequences": 2}
    truth = plain(task, models[task])
    batch = run(task, models[task], {"text": TEXTS}, parameters)
    expected = [
        {"generated_texts": [one["generated_text"] for one in truth(t, **parameters)]}
        for t in TEXTS
    ]
    assert all(len(set(one["generated_texts"])) == 2 for one in expected)
    assert_rows(batch, expected, 6)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("parameters", [SHORT, {**SHORT, "return_full_text": False}])
def test_chats(models, parameters, as_json):
    task = "text-generation"
    truth = plain(task, models[task])
    chats = [json.dumps(chat) for chat in CHATS] if as_json else CHATS
    batch = run(task, models[task], {"messages": chats}, parameters)
    expected = []
    for chat in CHATS:
        whole = truth(chat, **SHORT)[0]["generated_text"]
        expected.append({"generated_text": whole[-1]["content"], "messages": whole})
        if not parameters.get("return_full_text", True):
            expected[-1]["generated_text"] = truth(chat, **parameters)[0]["generated_text"]
    assert_rows(batch, expected)


def test_chats_and_texts_in_one_input_and_rows_with_neither(models):
    task = "text-generation"
    truth = plain(task, models[task])
    bad = [{"role": "user", "content": None}]
    chats = [None, json.dumps(CHATS[0]), None, json.dumps(bad), "no chat"]
    columns = {"text": [TEXTS[0], None, None, None, None], "messages": chats}
    batch = run(task, models[task], columns, SHORT)
    chat = truth(CHATS[0], **SHORT)[0]["generated_text"]
    empty = truth([{"role": "user", "content": None}], **SHORT)[0]["generated_text"]
    text = truth(TEXTS[0], **SHORT)[0]["generated_text"]
    assert_rows(
        batch,
        [
            {"generated_text": text, "messages": None},
            {"generated_text": chat[-1]["content"], "messages": chat},
            "expand",
            {
                "generated_text": empty[-1]["content"],
                "messages": [{"role": "user", "content": ""}, empty[-1]],
            },
            "expand",
        ],
    )


def test_a_prompt_longer_than_the_model_reads_dies_alone(models):
    """GPT-2 has a table of positions; a llama would go on."""
    from tests.support import tiny_generators

    folder = models.root / "gpt2"
    if not folder.exists():
        tiny_generators.gpt2(folder)
    texts = [TEXTS[0], tiny.sentence(200, 5), TEXTS[2]]
    batch = run("text-generation", str(folder), {"text": texts}, SHORT)
    truth = plain("text-generation", str(folder))
    expected = [{"generated_text": truth(t, **SHORT)[0]["generated_text"]} for t in texts[::2]]
    assert_rows(batch, [expected[0], "expand", expected[1]])


@pytest.mark.parametrize("sampled", [False, True])
def test_a_text_that_outgrows_the_models_positions_says_so(models, sampled):
    """Also where the model writes it alone; the others are still written together."""
    from tests.support import tiny_generators

    folder = models.root / "gpt2"
    if not folder.exists():
        tiny_generators.gpt2(folder)
    texts = [tiny.sentence(words, words) for words in (2, 4, 12, 3, 1, 5)]
    given = {"min_new_tokens": 45, "max_new_tokens": 47, "do_sample": sampled}
    given["num_beams"] = 2 if sampled else 1  # beams drawn by chance are left to `generate`
    load = LoadTask(
        task="text-generation", model=Model(path=str(folder)), columns=(("text", "text"),),
        parameters=json.dumps(given),
    )  # fmt: skip
    stages = load()
    batch = stages.process(Batch(pa.table({"text": texts})))
    (failure,) = batch.failures.values()
    assert list(batch.failures) == [2]
    assert "64 tokens that the model has positions for: lower max_new_tokens" in failure.message
    assert stages.task.schedules is not sampled


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("kind", ["GPTJ", "CTRL"])
def test_so_does_one_whose_positions_are_in_a_table_that_is_no_module(models, kind, sampled):
    """On a GPU a position beyond such a table would end the process, too."""
    from tests.support import tiny_generators

    folder = models.root / kind.lower()
    if not folder.exists():
        tiny_generators.with_table_in_code(folder, kind)
    texts = [tiny.sentence(1, 3), tiny.sentence(7, 5), tiny.sentence(40, 7)]
    given = {"min_new_tokens": 24, "max_new_tokens": 24, "do_sample": sampled}
    given["num_beams"] = 2 if sampled else 1  # beams drawn by chance are left to `generate`
    batch = run("text-generation", str(folder), {"text": texts}, given)
    assert {row: failure.stage for row, failure in batch.failures.items()} == {
        1: "forward", 2: "expand",
    }  # fmt: skip
    assert "40 tokens that the model has positions for" in batch.failures[1].message
    assert "more than the model's 40" in batch.failures[2].message
    if not sampled:
        expected = plain("text-generation", str(folder))(texts[0], **given)
        assert_rows(batch, [expected[0], "forward", "expand"])


def references(task, column):
    """Cases of several rows, made without parameters of loading, that were answered with text."""
    told = json.loads((REFERENCES / f"{task.replace('-', '_')}.json").read_text())
    for number, case in enumerate(told):
        rows, called = case["input"], case.get("called", {})
        if task == "text2text-generation" and case["model"] != "t5":
            continue  # that the pipelines themselves are right is tested elsewhere
        if isinstance(rows, list) and len(rows) > 1 and not {"made", "error", "seed"} & set(case):
            known = not {"return_tensors", "return_text", "batch_size"} & set(called)
            if known and not isinstance(rows[0], list) and "generated_token_ids" not in str(case):
                yield pytest.param(task, column, case, id=f"{task}-{case['model']}-{number}")


@pytest.mark.parametrize(
    ("task", "column", "case"),
    [
        *references("text2text-generation", "generated_text"),
        *references("summarization", "summary_text"),
        *references("translation", "translation_text"),
    ],
)
def test_removed_tasks_answer_as_4_57(task, column, case):
    expected = [one if isinstance(one, list) else [one] for one in case["answer"]]
    texts = [[found[column] for found in one] for one in expected]
    several = case["called"].get("num_return_sequences", 1) > 1 if "called" in case else False
    batch = run(
        case.get("task", task),
        REFERENCES / "models" / case["model"],
        {"text": case["input"]},
        case.get("called"),
        budgets=(1, 1_000_000),
    )
    rows = [{f"{column}s": one} if several else {column: one[0]} for one in texts]
    assert_rows(batch, rows, 2)


def test_languages_may_be_columns():
    """Beside a parameter for the other one, and in rows that lack one."""
    pipemill.restore_pipelines()
    folder = REFERENCES / "models/mbart"
    truth = plain("translation", str(folder))
    texts = ["the mill by the river", "Anna , Peter and Mary : a stone wheel"] * 3
    targets = ["de_DE", "fr_XX", "fr_XX", "de_DE", None, "en_XX"]
    sources = ["en_XX", None, "de_DE", "fr_XX", None, "en_XX"]

    def translate(text, source, target):
        if source is None or target is None:
            return "expand"
        return truth(text, src_lang=source, tgt_lang=target, **SHORT)[0]

    columns = {"text": texts, "tgt_lang": targets}
    batch = run("translation", folder, columns, {**SHORT, "src_lang": "en_XX"})
    assert_rows(batch, [translate(t, "en_XX", to) for t, to in zip(texts, targets, strict=True)])
    batch = run("translation", folder, {**columns, "src_lang": sources}, SHORT)
    assert_rows(batch, list(map(translate, texts, sources, targets)))
    assert "needs both src_lang and tgt_lang" in batch.failures[1].message
    with pytest.raises(ValueError, match=r"needs both .* set parameters\.tgt_lang, have columns"):
        run("translation", folder, {"text": texts, "src_lang": sources}, SHORT)


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("translation", {"tgt_lang": "German"}, "tgt_lang is 'German', which MBartTokenizer does"),
        ("translation", {"tgt_lang": "de"}, "which MBartTokenizer .*; did you mean de_DE"),
        ("translation", {"src_lang": "the"}, "src_lang is 'the', which"),
        ("translation_en_to_de", {}, r"src_lang \(of the task\) is 'en', .* did you mean en_XX"),
    ],
)
def test_a_language_that_the_model_does_not_know_is_refused(task, given, message):
    """transformers takes it for the unknown token, and answers in any language."""
    pipemill.restore_pipelines()
    if task == "translation":
        given = {"src_lang": "en_XX", "tgt_lang": "de_DE", **given}
    with pytest.raises(ValueError, match=message):
        run(task, REFERENCES / "models/mbart", {"text": TEXTS}, {**SHORT, **given})


def test_a_row_with_a_language_that_the_model_does_not_know_dies_alone():
    columns = {"text": TEXTS[:3], "tgt_lang": ["de_DE", "deu_Latn", "fr_XX"]}
    batch = run("translation", REFERENCES / "models/mbart", columns, {**SHORT, "src_lang": "en_XX"})
    assert list(batch.failures) == [1]
    assert "tgt_lang is 'deu_Latn', which MBartTokenizer does not know" in batch.failures[1].message


def _conversations():
    told = json.loads((REFERENCES / "conversational.json").read_text())
    for number, case in enumerate(told):
        plain = not {"made", "error", "seed"} & set(case) and "batch_size" not in case["called"]
        if plain and isinstance(case["input"][0], list):
            yield pytest.param(case, id=f"conversational-{number}")


@pytest.mark.parametrize("case", _conversations())
def test_conversations_go_on_as_in_4_57(case):
    folder = REFERENCES / "models" / case["model"]
    batch = run("conversational", folder, {"messages": case["input"]}, case["called"])
    rows = [{"generated_text": chat[-1]["content"], "messages": chat} for chat in case["answer"]]
    assert_rows(batch, rows)


def test_conversations_are_written_beside_each_other(models):
    load = LoadTask(
        task="conversational",
        model=Model(path=str(models["text-generation"])),
        columns=(("messages", "messages"),),
        parameters=json.dumps(SHORT),
    )
    stages = load()
    batch = stages.process(Batch(pa.table({"messages": list(map(json.dumps, CHATS * 3))})))
    assert not batch.failures
    assert stages.task.schedules


def test_sizes_are_tokens(models):
    """What a budget limits: each chunk is as large as its prompt."""
    batch = run("text-generation", models["text-generation"], {"text": TEXTS}, SHORT)
    words = transformers.AutoTokenizer.from_pretrained(models["text-generation"])
    assert batch.stats["tokens"] == sum(len(words(t)["input_ids"]) for t in TEXTS)


def test_columns_are_those_that_are_promised(models):
    batch = run("text-generation", models["text-generation"], {"messages": CHATS}, SHORT)
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    assert batch.results.schema == pa.schema(
        [("generated_text", pa.string()), ("messages", pa.list_(message))]
    )
