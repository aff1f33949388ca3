"""Read and continue the texts of a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
    given = [parameters.get(name) or {} for name in ("tokenizer_encode_kwargs", "processor_kwargs")]
    owner = pipeline.tokenizer if pipeline.processor is None else pipeline.processor
    # Mistral's tokenizers have no template, and write chats by themselves.
    if not hasattr(owner, "chat_template") or any("chat_template" in one for one in given):
        return
    template = owner.chat_template
    if isinstance(template, Mapping):
        why = f"several chat templates ({', '.join(template)}), and none is called default"
        template = template.get("default")
    else:
        why = "no chat template"
    if template is None and "Mistral" not in type(owner).__name__:
        raise ValueError(
            f"the model has {why}: it can't read messages. Name a model that is made for chats, or "
            "read a column of texts instead (--column text=COLUMN --column messages=)"
        )
    if template is None:
        return
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(template)
    except TemplateSyntaxError as error:
        raise ValueError(f"the model's chat template is damaged: {error}") from None
