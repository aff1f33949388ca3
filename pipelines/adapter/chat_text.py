"""Read and continue the texts of a chat."""

from __future__ import annotations

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
