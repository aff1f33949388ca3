"""Windows of many contexts at once: those of each context alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipemill.pipelines.restored.context_windows import (
    find_lack_of_room,
    make_fast_windows,
    make_window_columns,
)

from tests.pipelines.text.test_word_table import PIECES, TOKENIZERS, tokenizer_of
from tests.support import tiny

TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=30).map("".join).filter(bool)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5),
    length=st.integers(12, 40),
    stride=st.integers(0, 8),
)
@settings(max_examples=60, deadline=None)
def test_they_are_those_of_each_context(kind, pairs, length, stride):
    tokenizer = tokenizer_of(kind)
    pairs += [("who", tiny.sentence(n, n)) for n in (1, 40, 90)]
    some = []
    for question, context in pairs:
        tokens = len(tokenizer.tokenize(question))
        alone = make_fast_windows(tokenizer, question, context, "do_not_pad", stride, length)
        if find_lack_of_room(tokenizer, tokens, context, stride, length) is not None:
            with pytest.raises(ValueError, match="is too large"):
                list(alone)
        else:
            some.append((question, context, list(alone)))
    questions, contexts, expected = zip(*some, strict=True)
    found = make_window_columns(tokenizer, list(questions), list(contexts), stride, length)
    assert found.counts.tolist() == list(map(len, expected))
    windows = [window for alone in expected for window in alone]
    assert found.lengths.tolist() == [len(inputs["input_ids"]) for inputs, _ in windows]
    cuts = np.cumsum(found.lengths)[:-1]
    split = {name: np.split(values, cuts) for name, values in found.columns.items()}
    for i, (inputs, window) in enumerate(windows):
        own = {name: values[i] for name, values in split.items()}
        for name in ("input_ids", "token_type_ids"):
            assert own[name].tolist() == list(inputs[name])
        assert (own["starts"] >= 0).tolist() == window.allowed.tolist()
        for begins, ends, spans in (
            ("starts", "ends", window.characters),
            ("word_starts", "word_ends", window.words),
        ):
            got = np.stack([own[begins], own[ends]], axis=1)
            assert got[window.allowed].tolist() == spans[window.allowed].tolist()
