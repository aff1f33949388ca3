"""Objects of the `datasets` library as a job's input. Importing this does not import it."""

from __future__ import annotations

from typing import Any


def is_dataset(value: Any) -> bool:
    """Whether it is of a class of that library, whichever."""
    return any(kind.__module__.partition(".")[0] == "datasets" for kind in type(value).__mro__)


def check(value: Any) -> None:
    """Raises ValueError for one that can't be read again and again, row by row."""
    kinds = {kind.__name__ for kind in type(value).__mro__}
    if kinds & {"DatasetDict", "IterableDatasetDict"}:
        names = ", ".join(map(str, value))
        raise ValueError(
            f"a {type(value).__name__} holds several splits ({names}): "
            f"name one, such as dataset[{next(iter(value), 'train')!r}]"
        )
    if "IterableDataset" in kinds:
        raise ValueError(
            "an IterableDataset has no fixed rows to come back to after a crash: make it a Dataset "
            "(load it without streaming, or datasets.Dataset.from_generator), or write it to "
            "Parquet and name those files"
        )
    if "Dataset" not in kinds:
        raise ValueError(f"a {type(value).__name__} is no datasets.Dataset")
    if getattr(value, "_format_type", None) == "custom":
        raise ValueError(
            "the Dataset has a transform (set_transform, with_transform), which makes its rows "
            "anew each time they are read: apply it once with dataset.map(…), or take it off with "
            "dataset.with_format(None)"
        )


def fingerprint(value: Any) -> str | None:
    """What changes when the rows of a `datasets.Dataset` do; None for what is none."""
    return value._fingerprint if is_dataset(value) else None


def described(value: Any) -> Any:
    """In words, where it can't be stored itself; paths as they are."""
    return f"datasets.Dataset {value._fingerprint}" if is_dataset(value) else value
