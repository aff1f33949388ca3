"""The tensors that a model got in transformers 4.57, where 5 gives it fewer or more."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PreTrainedTokenizerBase

_TYPES = "token_type_ids"
# In 4.57 these did not declare their inputs, which meant token types. In 5 they declare inputs
# without token types.
_HAD_TYPES = {"AlbertTokenizer", "RemBertTokenizer", "SplinterTokenizer"}


def list_input_names(tokenizer: Any, model: Any) -> list[str]:
    """List the tokenizer's outputs that the model is called with.

    transformers 5 no longer gives token types by default: ALBERT, XLNet, Japanese BERT and others
    would no longer distinguish the question from the context, and answer differently. To
    DistilBERT, which does not take token types, it gives them.
    """
    names = [name for name in tokenizer.model_input_names if name != _TYPES]
    if _TYPES not in inspect.signature(model.forward).parameters:
        return names
    if _TYPES in tokenizer.model_input_names or _had_token_types(tokenizer):
        names.append(_TYPES)
    return names


def _had_token_types(tokenizer: Any) -> bool:
    if "model_input_names" in tokenizer.init_kwargs:  # the model's folder decides
        return False
    tokenizer_class = type(tokenizer)
    parents = tokenizer_class.__mro__
    parents = parents[: parents.index(PreTrainedTokenizerBase)]
    declared = any("model_input_names" in vars(parent) for parent in parents)
    return not declared or tokenizer_class.__name__ in _HAD_TYPES
