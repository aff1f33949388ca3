"""Values that a pipeline can't take: the dead letter names the column of the data."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pytest
from pipemill.actors.columns import matches
from pipemill.pipelines.adapter.row_values import _find_sampling_rate, read_messages

from tests.support.row_by_row import run


@pytest.mark.parametrize(
    ("task", "columns", "parameters", "said"),
    [
        ("image-classification", {"image": [""]}, {}, "'my_image': the value is an empty text"),
        ("image-classification", {"image": [b"GIF9"]}, {}, "'my_image': the image is in a format"),
        ("text-generation", {"messages": ["hello"]}, {}, "'my_messages': 'hello' is not JSON"),
        (
            "text-generation",
            {"messages": ['[{"role": "user", "content": ["a"]}]']},
            {},
            "'my_messages': the content of a message is a text or a list of parts",
        ),
        (
            "table-question-answering",
            {"query": ["who?"], "table": ["a,b"]},
            {},
            "'my_table': 'a,b' is not JSON",
        ),
        (
            "table-question-answering",
            {"query": [""], "table": ['{"a": ["b"]}']},
            {},
            "'my_query': the text '' has no character",
        ),
        (
            "token-classification",
            {"text": [["a", None]]},
            {"is_split_into_words": True},
            "'my_text': word 1 is null",
        ),
    ],
)
def test_a_value_that_a_pipeline_can_not_take(models, task, columns, parameters, said):
    batch = run(task, models[task], columns, parameters, budgets=(80,))
    assert batch.failures[0].message.startswith(f"column {said}")


def test_sound_is_read_at_the_rate_that_a_processor_names_by_either_name():
    from transformers import Wav2Vec2FeatureExtractor

    hears = Wav2Vec2FeatureExtractor(sampling_rate=8_000)
    for given, rate in (
        ({"feature_extractor": hears, "processor": None}, 8_000),
        ({"processor": SimpleNamespace(feature_extractor=hears)}, 8_000),
        ({"processor": SimpleNamespace(audio_processor=hears)}, 8_000),
        ({"processor": SimpleNamespace()}, 16_000),
    ):
        assert _find_sampling_rate(SimpleNamespace(**{"feature_extractor": None, **given})) == rate


def test_a_chat_whose_messages_are_json_each_is_read_as_it_was_written():
    """As `datasets` stores messages whose keys differ: a list of its feature Json."""
    call = {"function": {"name": "f", "arguments": {"city": "Köln", "n": 1, "unit": None}}}
    chat = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    assert matches("messages", pa.list_(pa.string()))
    assert read_messages([json.dumps(message) for message in chat]) == chat
    with pytest.raises(ValueError, match="'hello' is not JSON"):
        read_messages(["hello"])
    with pytest.raises(ValueError, match="a message is"):
        read_messages([json.dumps(chat[0]), None])
