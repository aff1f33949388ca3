"""Open images, audio and video inside the messages of a chat.

A pipeline's processor would fetch what a message names from anywhere. Here it is read like the
values of media columns, and the processor gets decoded media.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipemill.actors.task import MEDIA

from ..media.encode import encode_wav

_SOURCES = ("url", "path", "base64")


def open_media(chat: list[dict[str, Any]], decode: Callable[[Any, str], Any]) -> None:
    """Put the decoded medium into every part of the chat that names or holds one.

    decode: from a value of a media column and its kind to what a processor takes.
    """
    for part in _list_parts(chat):
        if part.get("type") == "image_url":  # as OpenAI's interface has it
            named = part.pop("image_url", None)
            part["type"] = "image"
            part["url"] = named.get("url") if isinstance(named, Mapping) else named
        kind = part.get("type")
        if kind in MEDIA:
            given = [part.pop(name, None) for name in (kind, *_SOURCES)]
            given[-1] = given[-1] and f"data:;base64,{given[-1]}"
            found = [value for value in given if value is not None]
            if len(found) > 1:
                raise ValueError(f"a message names one {kind} in {len(found)} ways: give one")
            if found:
                part[kind] = decode(found[0], kind)


def fill_media(chat: list[dict[str, Any]], values: Mapping[str, Any]) -> None:
    """Put the row's image, audio and video where the chat has a place for it.

    Raises:
        ValueError: a place without a medium, or a medium without a place.
    """
    left = {kind for kind in MEDIA if kind in values}
    for part in _list_parts(chat):
        kind = part.get("type")
        if kind not in MEDIA or kind in part:
            continue
        if kind not in left:
            raise ValueError(
                f"a message has a place for {_add_article(kind)}, and the row has no such value"
            )
        part[kind] = values[kind]
        left.remove(kind)
    if left:
        kind = min(left)
        raise ValueError(
            f"the row has both messages and {_add_article(kind)}, but no message says where it "
            f'belongs: {{"type": "{kind}"}} among its content'
        )


def build_chat(values: Mapping[str, Any], processor: Any) -> list[dict[str, Any]] | None:
    """Return the row's media and text as one user message, for a model that reads chats.

    None if the model reads no chats, or if the row has no medium; and if the text has the model's
    marks for its media: then it is the whole prompt.
    """
    media = [kind for kind in ("image", "video", "audio") if values.get(kind) is not None]
    text = values.get("text")
    reads = getattr(processor, "chat_template", None) is not None or writes_own_chats(processor)
    if not reads or not media:
        return None
    parts = [{"type": kind, kind: values[kind]} for kind in media]
    if text is not None:
        if any(mark in text for kind in media for mark in _find_marks(processor, kind)):
            return None
        parts.append({"type": "text", "text": text})
    return [{"role": "user", "content": parts}]


def writes_own_chats(owner: Any) -> bool:
    """Tell whether a tokenizer, or that of a processor, is Mistral's: it has no chat template."""
    return "Mistral" in type(getattr(owner, "tokenizer", owner)).__name__


def encode_recordings(chat: list[dict[str, Any]], processor: Any) -> None:
    """Put decoded recordings into a file's form again, where only that is read."""
    for part in _list_parts(chat) if writes_own_chats(processor) else ():
        if part.get("type") == "audio" and part.get("audio") is not None:
            wav = encode_wav(part.pop("audio"), processor.feature_extractor.sampling_rate)
            part["base64"] = b64encode(wav).decode()


def _find_marks(processor: Any, kind: str) -> list[str]:
    """Return the tokens that stand for a medium in a prompt."""
    first = f"bo{kind[0]}_token"  # "begin of image", as Gemma has it
    names = {f"{kind}_token", first, *(n for n in vars(processor) if kind in n and "token" in n)}
    owners = (processor, getattr(processor, "tokenizer", None))
    found = [getattr(owner, name, None) for owner in owners for name in sorted(names)]
    # A mark may be an AddedToken. Numbers of tokens are called so, too.
    texts = [getattr(mark, "content", mark) for mark in found]
    return [text for text in texts if text and isinstance(text, str)]


def leave_media(chat: list[dict[str, Any]]) -> None:
    """Remove decoded media from a chat: their tensors travel with the chunks."""
    for part in _list_parts(chat):
        if part.get("type") in MEDIA:
            part.pop(part["type"], None)
            part.pop("base64", None)


def _add_article(kind: str) -> str:
    return f"a {kind}" if kind == "video" else f"an {kind}"


def _list_parts(chat: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in chat:
        if isinstance(message.get("content"), list):
            yield from (part for part in message["content"] if isinstance(part, dict))
