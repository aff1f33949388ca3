"""Check the languages of a translation, for which a tokenizer has tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

_NAMES = ("src_lang", "tgt_lang")
_MOST = 40  # languages in a message


def check_languages(values: Mapping[str, Any], pipeline: Any) -> None:
    """Raise ValueError for a language that is missing, or that the model does not know.

    transformers takes an unknown one for the unknown token, and the model writes in any language.

    Args:
        values: of the parameters; a row says itself what is not among them.
        pipeline: the loaded pipeline.
    """
    tokenizer, words = pipeline.tokenizer, pipeline.task.split("_")
    if not hasattr(tokenizer, "_build_translation_inputs"):
        return
    kind, pair = type(tokenizer).__name__, len(words) == 4
    missing = [name for name in _NAMES if values.get(name, "") is None]
    if missing and not pair:
        raise ValueError(
            f"{kind} needs both src_lang and tgt_lang: set "
            f"parameters.{' and parameters.'.join(missing)}, have columns of these names, or name "
            "both in the task (translation_XX_to_YY)"
        )
    given = {name: values[name] for name in _NAMES if values.get(name)}
    if missing == list(_NAMES):
        given = {f"{name} (of the task)": words[i] for name, i in zip(_NAMES, (1, 3), strict=True)}
    known = _list_languages(tokenizer)
    for name, code in given.items():
        if known and not known.intersection((code, f"__{code}__")):
            raise ValueError(
                f"{name} is {code!r}, which {kind} does not know; {_hint(code, known)}"
            )


@lru_cache(maxsize=4)
def _list_languages(tokenizer: Any) -> frozenset[str]:
    """Return the languages that a tokenizer has tokens for, and the other tokens added to it."""
    named = getattr(tokenizer, "lang_code_to_id", None) or {}
    added = (name for name in tokenizer.get_added_vocab() if not name.startswith(("<", "[")))
    return frozenset((*named, *added))


def _hint(code: str, known: Collection[str]) -> str:
    """Return which languages are near, or the first ones."""
    names = sorted({name.strip("_") for name in known})
    near = get_close_matches(code, names, n=3) or [n for n in names if n.startswith(code[:2])]
    if near:
        return f"did you mean {' or '.join(near[:3])}?"
    return f"there are: {', '.join(names[:_MOST])}{', …' if len(names) > _MOST else ''}"
