"""Objects of the `datasets` library as a job's input; the library is not imported here."""

from __future__ import annotations

from typing import Any


def is_dataset(value: Any) -> bool:
    """Return whether a value is an object of the `datasets` library, of any class."""
    return any(cls.__module__.partition(".")[0] == "datasets" for cls in type(value).__mro__)


def check_dataset(value: Any) -> None:
    """Raise ValueError for an object whose rows can't be read repeatedly, with the same values."""
    classes = {cls.__name__ for cls in type(value).__mro__}
    if classes & {"DatasetDict", "IterableDatasetDict"}:
        names = ", ".join(map(str, value))
        raise ValueError(
            f"a {type(value).__name__} holds several dataset splits ({names}): "
            f"choose one, such as dataset[{next(iter(value), 'train')!r}]"
        )
    if "IterableDataset" in classes:
        raise ValueError(
            "an IterableDataset has no fixed rows to resume from after a crash: make it a Dataset "
            "(load it without streaming, or use datasets.Dataset.from_generator), or write it to "
            "Parquet and name those files"
        )
    if "Dataset" not in classes:
        raise ValueError(f"a {type(value).__name__} is not a datasets.Dataset")
    if getattr(value, "_format_type", None) == "custom":
        raise ValueError(
            "the Dataset has a transform (set_transform, with_transform), which computes its rows "
            "again each time they are read: apply it once with dataset.map(…), or remove it with "
            "dataset.with_format(None)"
        )


def find_fingerprint(value: Any) -> str | None:
    """Return the fingerprint of a `datasets.Dataset`'s rows; None for any other value."""
    return value._fingerprint if is_dataset(value) else None


def describe(value: Any) -> Any:
    """Return a dataset as a text that can be stored, and paths as they are."""
    return f"datasets.Dataset {value._fingerprint}" if is_dataset(value) else value
