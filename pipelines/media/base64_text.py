"""Media files as base64 text, which transformers takes in place of a path."""

from __future__ import annotations

import base64
import re

from .local_files import shorten_name

# Base64 characters. No media file is shorter, and no path of that length looks like one by chance.
_SHORTEST, _HEAD = 32, 64
_SIGNATURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}(WEBP|WAVE)|II\*\0|MM\0\*"
    rb"|\0\0\1\0|\0\0\0\x0cjP  |.{4}ftypavi[fs]|P[1-6]\s|qoif|fLaC|OggS|ID3",
    re.DOTALL,
)


def decode_media(text: str) -> bytes | None:
    """Return the bytes that a text encodes, if they begin like an image or audio file; else None.

    Raises:
        ValueError: for such a text that is broken after its beginning.
    """
    head = "".join(text[: 2 * _HEAD].split())[:_HEAD]
    if len(head) < _SHORTEST or not _SIGNATURES.match(_decode(head[: len(head) // 4 * 4]) or b""):
        return None
    whole = _decode("".join(text.split()).rstrip("="))
    if whole is None:
        raise ValueError(
            "the base64 text of an image or audio file is broken after its beginning: "
            f"{shorten_name(text)}"
        )
    return whole


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None
