"""Restored tasks from text to text, against the answers of transformers 4.57.6."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pipemill.pipelines.restored import restore_pipelines

from tests.support.restored_cases import REFERENCES, cases, check, check_rows_differ

CHAT = [{"role": "user", "content": "the mill by the river ?"}]
SHORT = {"max_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module", autouse=True)
def _restored():
    restore_pipelines()


def _pipeline(task: str, model: str, **made: Any) -> Any:
    import transformers

    return transformers.pipeline(task, model=str(REFERENCES / "models" / model), **made)


def _shown(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_shown(item) for item in answer]
    return {k: v if isinstance(v, str) else v.tolist() for k, v in answer.items()}


def _messages(answer: Any) -> Any:
    return [_messages(a) for a in answer] if isinstance(answer, list) else answer.messages


@pytest.mark.filterwarnings("ignore:stop_sequence", "ignore:the task names no languages")
@pytest.mark.parametrize(
    ("task", "case"),
    [*cases("text2text-generation"), *cases("summarization"), *cases("translation")],
)
def test_texts_equal_those_of_4_57(task, case):
    check(task, case, _shown)


@pytest.mark.parametrize(("task", "case"), cases("conversational"))
def test_replies_equal_those_of_4_57(task, case):
    check(task, case, _messages)


@pytest.mark.parametrize(
    "task", ["text2text-generation", "summarization", "translation", "conversational"]
)
def test_expected_answers_differ(task):
    check_rows_differ(task)


@pytest.mark.parametrize("model", ["t5", "bart"])
def test_a_batch_has_the_answers_of_its_rows(model):
    pipe = _pipeline("text2text-generation", model, max_new_tokens=8)
    texts = ["the mill", "Anna and Peter by the river , a stone wheel", "日本 !", "rain"]
    assert pipe(texts, batch_size=3) == pipe(texts)


def test_models_and_parameters_are_left_as_they_are():
    pipe = _pipeline("summarization", "t5", max_new_tokens=6)
    before = copy.deepcopy(pipe.model.config.task_specific_params)
    other = _pipeline("summarization", "t5", max_new_tokens=6)
    assert pipe("rain") == other("rain")
    assert pipe("rain", num_beams=1) != pipe("rain", num_beams=1, max_new_tokens=3)
    again = type(pipe)(pipe.model, pipe.tokenizer, task="summarization", max_new_tokens=6)
    assert again.prefix == pipe.prefix == "mill : "
    assert pipe.model.config.task_specific_params == before
    pipe.model.generation_config.pad_token_id = None
    again = type(pipe)(pipe.model, pipe.tokenizer, task="summarization")
    assert again.generation_config.pad_token_id == pipe.tokenizer.pad_token_id == 0
    assert pipe.model.generation_config.pad_token_id is None


def test_a_temperature_of_zero_is_no_sampling():
    from pipemill.pipelines.restored.generation_config import _copy_unset
    from transformers import GenerationConfig

    config = GenerationConfig(temperature=0.0)
    _copy_unset(config, GenerationConfig(do_sample=True, top_k=7))
    assert (config.do_sample, config.top_k) == (False, 7)


def test_spaces_before_punctuation_go_for_any_tokenizer():
    pipe = _pipeline("text2text-generation", "bart")
    ids = pipe.tokenizer("rain , sun !").input_ids
    assert pipe.decode(ids) == pipe.decode(ids, False) == "rain , sun !"
    assert pipe.decode(ids, True) == "rain, sun!"
    pipe.tokenizer.clean_up_tokenization_spaces = True
    assert pipe.decode(ids) == "rain, sun!"


def test_a_tokenizer_with_token_types():
    pipe = _pipeline("text2text-generation", "t5", max_new_tokens=4)
    expected = pipe("rain")
    pipe.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert "token_type_ids" in pipe.tokenizer("rain")
    assert pipe("rain") == expected


def test_a_generation_config_in_the_call_replaces_the_pipelines():
    from transformers import GenerationConfig

    pipe = _pipeline("text2text-generation", "t5", max_new_tokens=4)
    greedy = GenerationConfig(max_new_tokens=9, num_beams=1)
    (told,) = pipe("the mill", generation_config=greedy)
    assert pipe("the mill", num_beams=1, max_new_tokens=9) == [told]
    assert pipe("the mill") != [told]


def test_a_conversation_gets_its_reply_itself():
    from pipemill.pipelines.restored.conversational import Conversation

    pipe = _pipeline("conversational", "llama", **SHORT)
    chat = copy.deepcopy(CHAT)
    reply = pipe(chat).messages[-1]
    assert chat == CHAT
    assert reply["role"] == "assistant"
    conversation = Conversation(CHAT[0]["content"])
    assert pipe(conversation) is conversation
    assert conversation.generated_responses == [reply["content"]]
    conversation.add_user_input("and Anna ?")
    assert len(pipe(conversation)) == 4
    assert list(conversation)[1] == reply == conversation[1]
    assert conversation == Conversation(conversation.messages) != Conversation("a")
    with pytest.raises(TypeError, match="unhashable"):  # as in transformers: its messages change
        hash(conversation)


def test_conversations_of_a_batch_do_not_change_one_another():
    pipe = _pipeline("conversational", "llama", **SHORT)
    chats = [CHAT, [{"role": "user", "content": "rain"}], [*CHAT, *CHAT]]
    assert _messages(pipe(chats, batch_size=3)) == [pipe(chat).messages for chat in chats]


@pytest.mark.parametrize(
    ("chat", "parameters", "message"),
    [
        ([], {}, None),
        ([{"role": "user"}], {}, "'role' and a 'content'"),
        (CHAT, {"num_return_sequences": 2, "do_sample": True}, "use text-generation"),
    ],
)
def test_mistakes_in_conversations(chat, parameters, message):
    pipe = _pipeline("conversational", "llama", **SHORT)
    if message is None:
        assert pipe(chat) == []
        return
    with pytest.raises(ValueError, match=message):
        pipe(chat, **parameters)


def test_a_return_type_that_is_none():
    pipe = _pipeline("text2text-generation", "t5", max_new_tokens=4)
    with pytest.raises(ValueError, match="return_type is 'text'"):
        pipe("rain", return_type="text")
