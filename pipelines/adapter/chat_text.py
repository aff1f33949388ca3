"""Read and continue the texts of a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .chat_media import writes_own_chats

# Parameters in which a job may bring a chat template.
_WITH_TEMPLATE = ("tokenizer_encode_kwargs", "processor_kwargs", "chat_template_kwargs")
# A chat of one message has a frame of system prompt and tools, but never this many characters.
_LONGEST_FRAME = 10**6
# A width of nine digits, as "{:>999999999}" and "%999999999d" have. JSON quotes what is before a :.
_WIDE_FORMAT = re.compile(r"""\{[^{}:"']*:[^{}]*\d{9}[^{}]*\}|%[-+ #0]*\d{9}""")


def message_text(generated: Any) -> str:
    """Return the text itself, or that of the last message of a chat."""
    if isinstance(generated, str):
        return generated
    content = generated[-1].get("content")
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content)
    return content or ""


def append_reply(
    messages: list[dict[str, Any]], text: str, goes_on: bool | None
) -> list[dict[str, Any]]:
    """Return the chat with a text that was written after it.

    goes_on: whether the text continues the last message; None: if that is the assistant's.
    """
    last = messages[-1]
    if goes_on or (goes_on is None and last["role"] == "assistant"):
        return [*messages[:-1], {**last, "content": message_text([last]) + text}]
    return [*messages, {"role": "assistant", "content": text}]


def check_chat_template(pipeline: Any, parameters: Mapping[str, Any]) -> None:
    """Raise ValueError for a model without a template for chats, or with one that is damaged."""
    given = [parameters.get(name) or {} for name in _WITH_TEMPLATE]
    owner = pipeline.tokenizer if pipeline.processor is None else pipeline.processor
    own = [one["chat_template"] for one in given if isinstance(one.get("chat_template"), str)]
    for template in own:
        _check_template(template, "the parameter chat_template", owner)
    # Mistral's tokenizers have no template, and write chats by themselves.
    if not hasattr(owner, "chat_template") or any("chat_template" in one for one in given):
        return
    template = owner.chat_template
    if isinstance(template, Mapping):
        why = f"several chat templates ({', '.join(template)}), and none is called default"
        template = template.get("default")
    else:
        why = "no chat template"
    if template is None and not writes_own_chats(owner):
        raise ValueError(
            f"the model has {why}: it can't read messages. Name a model that is made for chats, or "
            "read a column of texts instead (--column text=COLUMN --column messages=)"
        )
    if template is not None:
        _check_template(template, "the model's chat template", owner)


def _check_template(template: str, name: str, owner: Any) -> None:
    """Raise ValueError for a template that is damaged, or writes enormous texts."""
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        # Compiling computes what is constant, such as a text of a gigabyte; parsing does not.
        parsed = _compile_jinja_template("").environment.parse(template)
        for value in _find_enormous(parsed):
            raise ValueError(
                f"{name} holds {str(value)[:60]!r}, which makes texts of gigabytes: a template "
                "needs no such width"
            )
        compiled = _compile_jinja_template(template)
    except TemplateSyntaxError as error:
        raise ValueError(f"{name} is damaged: {error}") from None
    special = getattr(getattr(owner, "tokenizer", owner), "special_tokens_map", {})
    for content in ("a", [{"type": "text", "text": "a"}]):
        chat = [{"role": "user", "content": content}]
        try:
            text = compiled.render(messages=chat, add_generation_prompt=True, **special)
        except Exception:  # it may refuse this chat, but not those of the rows
            continue
        if len(text) > _LONGEST_FRAME:
            raise ValueError(
                f"{name} makes {len(text):,} characters of a message of one: no row could be read"
            )


def _find_enormous(template: Any) -> Iterator[str | int]:
    """Yield texts that format to an enormous width, and numbers that are one or say how often."""
    from jinja2 import nodes

    for constant in template.find_all(nodes.Const):
        if isinstance(constant.value, str) and _WIDE_FORMAT.search(constant.value):
            yield constant.value
    # Elsewhere a number is a time, or greater than all others.
    for node in template.find_all((nodes.Call, nodes.Filter, nodes.Mul)):
        for value in (getattr(child, "value", None) for child in node.iter_child_nodes()):
            if isinstance(value, int) and value >= 10**8:
                yield value
