"""Which tensors a model was given in transformers 4.57, where 5 gives it fewer or more."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PreTrainedTokenizerBase

_TYPES = "token_type_ids"
# These declared no inputs in 4.57, which meant token types; in 5 they declare to have none.
_HAD_TYPES = {"AlbertTokenizer", "RemBertTokenizer", "SplinterTokenizer"}


def list_input_names(tokenizer: Any, model: Any) -> list[str]:
    """The names of the tokenizer's outputs that the model is called with.

    transformers 5 no longer gives token types by default: ALBERT, XLNet, Japanese BERT and others
    would tell the question from the context no more, and answer differently. To DistilBERT, which
    has none, it gives them.
    """
    names = [name for name in tokenizer.model_input_names if name != _TYPES]
    if _TYPES not in inspect.signature(model.forward).parameters:
        return names
    if _TYPES in tokenizer.model_input_names or _had_token_types(tokenizer):
        names.append(_TYPES)
    return names


def _had_token_types(tokenizer: Any) -> bool:
    if "model_input_names" in tokenizer.init_kwargs:  # the folder's own word
        return False
    kind = type(tokenizer)
    own = kind.__mro__[: kind.__mro__.index(PreTrainedTokenizerBase)]
    declared = any("model_input_names" in vars(parent) for parent in own)
    return not declared or kind.__name__ in _HAD_TYPES
