"""Values that a pipeline can't take: the dead letter names the column of the data."""

import pytest

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
