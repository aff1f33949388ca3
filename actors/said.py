"""What an exception says, as a text that any file holds."""

from __future__ import annotations


def said(error: BaseException) -> str:
    """Its message. A class of the user's may raise for it, or name half a character."""
    try:
        message = str(error)
    except Exception as other:
        message = f"(its message raises {type(other).__name__})"
    return message.encode(errors="replace").decode()
