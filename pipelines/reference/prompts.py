"""Texts as a model reads them: with a prompt before each."""

from __future__ import annotations

import pyarrow as pa


def with_prompt(rows: pa.Table, column: str, prompt: str) -> pa.Table:
    """Return the rows with the prompt before every text of that column."""
    if not prompt:
        return rows
    texts = [prompt + text for text in rows[column].to_pylist()]
    place = rows.column_names.index(column)
    return rows.set_column(place, column, pa.array(texts, pa.string()))
