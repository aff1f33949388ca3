"""Check a job's keywords for a tokenizer, which takes any name and reads those that it knows."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

# Parameters of jobs that go to a part of the pipeline as they are.
_READERS = {
    "tokenizer_kwargs": "tokenizer",
    "tokenizer_encode_kwargs": "tokenizer",
    "chat_template_kwargs": "processor",
}


def check_tokenizer_keywords(
    given: Mapping[str, Any], pipeline: Any, reads_chats: bool, columns: Collection[str]
) -> None:
    """Raise ValueError for a keyword that nothing reads: a misspelt one, mostly.

    Args:
        given: the parameters of the job.
        pipeline: the loaded pipeline.
        reads_chats: whether a chat template makes the texts; it reads names of its own.
        columns: those of the task that the job has.
    """
    # A text beside an image becomes a chat.
    if given.get("chat_template_kwargs") and set(columns) == {"text"}:
        raise ValueError(
            "chat_template_kwargs is for chats, and the rows are plain texts: leave it out, or "
            "give chats in a column messages"
        )
    for parameter, part in _READERS.items():
        reader, keywords = getattr(pipeline, part, None), given.get(parameter)
        if reader is None or not keywords:
            continue
        chats = reads_chats or parameter == "chat_template_kwargs"
        known, names = _list_keywords(reader, chats), _list_names_in_code(type(reader))
        texts = _list_templates(reader, keywords) if chats else []
        for key in keywords:
            if key not in {*known, *names} and not any(key in text for text in texts):
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "leave it out"
                who = type(reader).__name__ + (" and its chat template know" if chats else " knows")
                raise ValueError(f"{parameter}: {who} no {key!r}; {hint}")


def _list_keywords(reader: Any, chats: bool) -> list[str]:
    """Return the keywords that users may mean, in the order of the signatures."""
    functions = [reader.__call__, getattr(reader, "_encode_plus", None)]
    if chats:
        functions.insert(0, getattr(reader, "apply_chat_template", None))
    arguments = [
        argument.name
        for function in functions
        if function is not None
        for argument in inspect.signature(function).parameters.values()
        if argument.default is not argument.empty and not argument.name.startswith("text")
    ]
    return list(dict.fromkeys(arguments))


def _list_names_in_code(reader_class: type) -> set[str]:
    """Return the arguments of all methods, and the texts in their code: kwargs["name"]."""
    codes = [
        function.__code__
        for base in reader_class.__mro__
        for function in vars(base).values()
        if hasattr(function, "__code__")
    ]
    texts = {text for code in codes for text in code.co_consts if isinstance(text, str)}
    arguments = (c.co_varnames[: c.co_argcount + c.co_kwonlyargcount] for c in codes)
    return texts.union(*arguments)


def _list_templates(reader: Any, keywords: Mapping[str, Any]) -> list[str]:
    own = keywords.get("chat_template"), getattr(reader, "chat_template", None)
    each = [list(one.values()) if isinstance(one, Mapping) else [one] for one in own]
    return [text for several in each for text in several if isinstance(text, str)]
