"""The dataset card of an output on the Hugging Face Hub: what it holds, and how it was made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .job_record import JobRecord

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard

DATA = "data"  # the folder of the parts
# The most files of a folder: the Hub refuses others.
FOLDER_FILES = 10_000
_TAG = "pipemill"
_BEGIN, _END = "<!-- pipemill: begin -->", "<!-- pipemill: end -->"


def place_part(number: int, name: str, count: int) -> str:
    """Return where a part is in a dataset. count: how many there are."""
    if count <= FOLDER_FILES:
        return f"{DATA}/{name}"
    return f"{DATA}/{number // FOLDER_FILES:05}/{name}"


def place_parts(count: int) -> str:
    """Return the pattern of the places of so many parts."""
    return f"{DATA}/part-*.parquet" if count <= FOLDER_FILES else f"{DATA}/*/part-*.parquet"


@dataclass(frozen=True, kw_only=True)
class HubCard:
    """What the card of a dataset says.

    Attributes:
        name: of the dataset on the Hub.
        record: of the job.
        schema: the columns.
        rows, dead: of the output: all input rows, and those that could not be computed.
        parts: how many files the rows are in.
    """

    name: str
    record: JobRecord
    schema: pa.Schema
    rows: int
    dead: int
    parts: int

    def render(self, old: str | None) -> str:
        """Return the README.md.

        Args:
            old: the one that the dataset has. What people wrote into it stays.
        """
        from huggingface_hub import DatasetCard

        if old is None:
            card = DatasetCard(f"---\n{{}}\n---\n\n# {self.name.rsplit('/', 1)[-1]}\n")
        else:
            card = DatasetCard(old)
        self._set_metadata(card)
        section = f"{_BEGIN}\n{self._describe()}\n{_END}"
        before, begin, rest = card.text.partition(_BEGIN)
        if begin:
            card.text = f"{before}{section}{rest.partition(_END)[2]}"
        else:
            card.text = f"{card.text.rstrip()}\n\n{section}\n"
        return str(card)

    def _set_metadata(self, card: DatasetCard) -> None:
        """Name the parts as the default config; other configs, tags and entries stay."""
        files = {"split": "train", "path": place_parts(self.parts)}
        ours = {"config_name": "default", "data_files": [files]}
        others = [c for c in card.data.get("configs") or [] if c.get("config_name") != "default"]
        card.data["configs"] = [ours, *others]
        card.data["tags"] = [*(t for t in card.data.get("tags") or [] if t != _TAG), _TAG]

    def _describe(self) -> str:
        record = self.record
        versions = record.versions
        parameters = {prefix: entry.get("parameters") or {} for prefix, entry in record.entries}
        given = parameters.get("", {prefix[:-1]: value for prefix, value in parameters.items()})
        lines = [
            f"Computed with pipemill {versions.get('pipemill', '')}.",
            "",
            f"- **Task:** {record.task}",
            *(
                line
                for prefix, entry in record.entries
                for line in self._describe_model(prefix, entry)
            ),
            f"- **Rows:** {self._count_rows()}",
            f"- **Started:** {record.created}",
            f"- **Versions:** {', '.join(f'{name} {what}' for name, what in versions.items())}",
            "",
            "Parameters:",
            "",
            "```json",
            json.dumps(given),
            "```",
            "",
            "| column | type |",
            "| --- | --- |",
            *(f"| `{field.name}` | `{field.type}` |" for field in self.schema),
        ]
        return "\n".join(lines)

    def _describe_model(self, prefix: str, entry: Mapping[str, Any]) -> list[str]:
        model, decides = entry["model"], self.record.decides
        of = f" of {prefix[:-1]}" if prefix else ""
        weights = f"{decides.get(f'{prefix}model')}, {decides.get(f'{prefix}model.dtype')}"
        lines = [
            f"- **Model{of}:** {_name_model(model['path'])}",
            f"- **Weights{of}:** {weights}",
        ]
        if _is_on_hub(model["path"]):
            revision = model.get("revision") or "the newest one then"
            lines.insert(1, f"- **Revision{of}:** {revision}")
        return lines

    def _count_rows(self) -> str:
        done = f"{self.rows - self.dead:,}"
        if not self.dead:
            return done
        where = "have null answers" if self.record.keeps_dead_rows else "are left out"
        return f"{done} of {self.rows:,}; {self.dead:,} could not be computed and {where}"


def _name_model(path: str) -> str:
    """Return a link to a model on the Hub. Of a folder or URL only the last name is published."""
    if _is_on_hub(path):
        return f"[{path}](https://huggingface.co/{path})"
    return path.rstrip("/").rsplit("/", 1)[-1]


def _is_on_hub(path: str) -> bool:
    is_name = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) is not None
    return is_name and not os.path.exists(path)
