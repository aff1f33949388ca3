"""Media files as base64 text, which transformers takes in place of a path."""

from __future__ import annotations

import base64
import re

from .local_files import shorten_name

# Base64 characters. No media file is shorter, and no path of that length looks like one by chance.
_SHORTEST, _HEAD = 32, 64
_SIGNATURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|BM.{4}\0{4}|RIFF.{4}(WEBP|WAVE)|II\*\0|MM\0\*"
    rb"|\0\0\1\0|\0\0\0\x0cjP  |.{4}ftyp|P[1-6]\s|qoif|fLaC|OggS|ID3|\x1aE\xdf\xa3|FORM.{4}AIF[FC]"
    rb"|\.snd\0|caff\0",
    re.DOTALL,
)
# Of MP3 and AAC without any mark before the first frame. A path may begin like that by chance, and
# have no other characters; hardly one as long as a tenth of a second of sound.
_FRAMES, _SHORTEST_OF_FRAMES = re.compile(rb"\xff[\xe2\xe3\xf1-\xf3\xf9-\xfb]"), 1024
_URL_SAFE = str.maketrans("-_", "+/")


def decode_media(text: str) -> bytes | None:
    """Return the bytes that a text encodes, if they begin like an image or audio file; else None.

    Raises:
        ValueError: for such a text that is broken after its beginning.
    """
    head = "".join(text[: 2 * _HEAD].split())[:_HEAD]
    if len(head) < _SHORTEST:
        return None
    try:
        start = decode_base64(head[: len(head) // 4 * 4])
    except ValueError:
        return None
    has_signature = _SIGNATURES.match(start)
    has_frames = len(text) >= _SHORTEST_OF_FRAMES and text[0] == "/" and _FRAMES.match(start)
    if not has_signature and not has_frames:
        return None
    try:
        return decode_base64(text)
    except ValueError:
        if not has_signature:
            return None
        raise ValueError(
            "the base64 text of an image or audio file is broken after its beginning: "
            f"{shorten_name(text)}"
        ) from None


def decode_base64(text: str) -> bytes:
    """Return the bytes of a text in either alphabet of base64, with or without its end marks.

    Raises:
        ValueError: it has other characters, or is cut off.
    """
    text = "".join(text.split()).rstrip("=").translate(_URL_SAFE)
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
