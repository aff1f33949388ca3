"""Datasets on the Hugging Face Hub by name: which files hold a dataset split, in which commit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from pipemill.actors.storage.backoff import retry_on_driver
from pipemill.actors.storage.filesystem import open_filesystem
from pipemill.actors.storage.input_file import InputFile

from pipemill.errors import ConfigError, RunError, did_you_mean

if TYPE_CHECKING:
    import datasets

_PREFIX = "hf://datasets/"
# A page that shows a dataset or a file of it, and does not send the file.
_PAGE = re.compile(
    r"https?://(?:huggingface|hf)\.co/datasets/([^/?#]+/[^/?#]+)(?:/(?:tree|blob|viewer)\b.*|/?)"
)
_KEYS = ("split", "config")
# Builders of `datasets` that read what the files hold, and no more.
_BUILDERS = ("parquet", "json", "csv", "text", "arrow", "webdataset")


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """A dataset by its name, as in hf://datasets/org/name@revision?split=train&config=en."""

    name: str
    revision: str | None
    split: str | None
    config: str | None


def parse_hub_dataset(path: str) -> HubDataset | None:
    """Return the dataset that a path names; None for a path into its files, and for others.

    Raises:
        ConfigError: the path is the address of a web page, or asks for something unknown.
    """
    if page := _PAGE.fullmatch(path):
        raise ConfigError(
            f"{path} is a page about a dataset: name the dataset, as {_PREFIX}{page[1]}, or its "
            f"files, as {_PREFIX}{page[1]}/data/*.parquet"
        )
    match = re.fullmatch(rf"{_PREFIX}([^/@?*]+(?:/[^/@?*]+)?)(?:@([^/?*]+))?/?(?:\?(.*))?", path)
    if match is None:
        return None
    name, revision, query = match.groups()
    given = {key: values[-1] for key, values in parse_qs(query or "").items()}
    if unknown := sorted(set(given) - set(_KEYS)):
        raise ConfigError(f"{path}: {unknown[0]!r} is unknown; {did_you_mean(unknown[0], _KEYS)}")
    return HubDataset(
        name=name, revision=revision, split=given.get("split"), config=given.get("config")
    )


def list_hub_files(
    dataset: HubDataset, options: Mapping[str, Any], planned: Iterable[str]
) -> list[InputFile]:
    """Return the files of a dataset split, as `datasets` finds them, in one commit.

    Args:
        planned: paths that an output was planned for: it goes on with the commit that they name.

    Raises:
        ConfigError: there is no such dataset or split, or several splits to choose from, or only
            `datasets` can read the rows.
    """
    revision = dataset.revision or _find_commit(dataset.name, planned)
    by_split = _resolve(dataset, revision, options)
    example = f"{_PREFIX}{dataset.name}?split="
    if dataset.split is None and len(by_split) > 1:
        raise ConfigError(
            f"the dataset {dataset.name} holds several dataset splits ({', '.join(by_split)}): "
            f"name one, as in {example}{next(iter(by_split))}"
        )
    split = dataset.split or next(iter(by_split), "train")
    if split not in by_split:
        raise ConfigError(
            f"the dataset {dataset.name} has no dataset split {split!r}; "
            f"{did_you_mean(split, by_split)}"
        )
    return _stat_files(by_split[split], options)


def _resolve(
    dataset: HubDataset, revision: str | None, options: Mapping[str, Any]
) -> dict[str, list[str]]:
    """Return the URLs of files by dataset split."""

    def load() -> datasets.DatasetBuilder:
        import datasets

        return datasets.load_dataset_builder(
            dataset.name, dataset.config, revision=revision, token=options.get("token")
        )

    try:
        builder = retry_on_driver(load, f"{_PREFIX}{dataset.name}")
    except RunError:
        raise
    except Exception as error:  # of datasets, of huggingface_hub and of the network
        reason = " ".join(str(error).split())
        hint = ": name it with ?config=NAME" if "onfig" in reason else ""
        raise ConfigError(
            f"can't find the dataset {dataset.name} on the Hub: {reason}{hint}"
        ) from error
    kind = type(builder).__module__.rpartition(".")[2]
    if kind not in _BUILDERS:
        raise ConfigError(
            f"the dataset {dataset.name} is read by the {kind} builder of datasets, which makes "
            "more of its files than their rows: in Python, give the Dataset itself "
            f'(input=datasets.load_dataset("{dataset.name}", split=…))'
        )
    files = builder.config.data_files or {}
    return {str(split): [str(url) for url in urls] for split, urls in files.items()}


def _stat_files(urls: list[str], options: Mapping[str, Any]) -> list[InputFile]:
    """Return files with their sizes. Their commit is in the URL, so no version is needed."""
    if not urls:
        return []
    outside = next((url for url in urls if not url.startswith(_PREFIX)), None)
    if outside is not None:
        raise ConfigError(f"the dataset refers to {outside}, outside of the Hub: name that file")
    filesystem, _ = open_filesystem(urls[0], options)
    root = re.match(r"hf://(datasets/[^@]+@[^/]+)", urls[0])
    assert root is not None
    found = retry_on_driver(lambda: filesystem.find(root[1], detail=True), urls[0])
    return [InputFile(url, int(found[url.removeprefix("hf://")]["size"]), "") for url in urls]


def _find_commit(name: str, planned: Iterable[str]) -> str | None:
    marks = (re.match(rf"{re.escape(_PREFIX + name)}@([^/]+)/", path) for path in planned)
    return next((match[1] for match in marks if match), None)
