"""Publish the rows of an output as a dataset on the Hugging Face Hub: `pipemill push`."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: an interrupt of these is a traceback
    from .cli.verb_module import run_verb

    run_verb(__file__)

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from pipemill.actors.split import Split

from pipemill.errors import ConfigError, RunError, explain_interrupt

from .output.hub_card import DATA, HubCard, place_part
from .output.ledger import Ledger, open_output
from .output.split_plan import Plan
from .output.text_table import Block, Shown, format_count, make_fact_table

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi

_PART = re.compile(rf"{DATA}/(\d{{5,}}/)?part-\d{{8}}-[0-9a-f]+\.parquet")
_UPLOAD_BYTES = 2**28  # in memory at once
_COMMIT_FILES = 100  # the Hub takes long for a commit of very many
_LONGEST = 500  # characters of a message


@dataclass(frozen=True, kw_only=True)
class Publication(Shown):
    """The result of `push`.

    Attributes:
        name: The dataset on the Hub.
        url: Its page.
        commit: The commit that holds these rows.
        rows: How many rows it has.
        parts: How many files they are in.
    """

    name: str
    url: str
    commit: str
    rows: int
    parts: int

    def to_json(self) -> str:
        """Return one line."""
        return json.dumps(asdict(self))

    def blocks(self) -> list[Block]:
        """Return what a reader wants to see."""
        rows = f"{self.rows:,} in {format_count(self.parts, 'part')}"
        return [make_fact_table([("dataset", self.url), ("rows", rows), ("commit", self.commit)])]


def push(
    output: str | os.PathLike[str],
    name: str,
    *,
    private: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Publication:
    """Publish the rows of a complete output, and a dataset card. Pushed again, only what changed.

    Neither dead letters nor other state are published, nor where the input and the output are. The
    token is that of `hf auth login` or HF_TOKEN.

    Args:
        output: The folder or URL that a run wrote to.
        name: The dataset on the Hub, such as "org/answers". It is made if it does not exist. Parts
            of another output in it are replaced; other files stay.
        private: Whether a new dataset is private; None for what the organization has chosen.
        storage_options: For the output's filesystem.

    Returns:
        Where the rows are published.

    Raises:
        ConfigError: The folder is not an output of pipemill, or it is not complete; the name is
            wrong, or there is no token; or the dataset is public, and should be private.
        RunError: The Hub refused, or can't be reached.
    """
    ledger, record, plan = open_output(output, storage_options)
    exist = ledger.parts()
    left = sum(split.part not in exist for split in plan.splits)
    if left:
        raise ConfigError(
            f"{output} is not complete: {left:,} of {len(plan.splits):,} splits have no part yet. "
            "Run the job again, then push"
        )
    check_dataset_name(name)
    footers = ledger.footers(plan.splits)
    rows, dead = sum(footer.rows for footer in footers), sum(footer.dead for footer in footers)
    with ledger.open(plan.splits[0].part) as file:
        schema = pq.read_schema(file)
    with explain_interrupt("interrupted; push again to go on"), _explain_refusal(name):
        from huggingface_hub import HfApi

        api = HfApi()
        repo = api.create_repo(name, repo_type="dataset", private=private, exist_ok=True)
        if private and not api.dataset_info(repo.repo_id).private:
            raise ConfigError(
                f"the dataset {repo.repo_id} exists and is public: make it private in its "
                "settings on the Hub, or name another one"
            )
        card = HubCard(
            name=repo.repo_id,
            record=record,
            schema=schema,
            rows=rows,
            dead=dead,
            parts=len(plan.splits),
        )
        commit = _commit(api, repo.repo_id, ledger, plan, card)
    return Publication(
        name=repo.repo_id,
        url=str(repo),
        commit=commit.oid,
        rows=rows if record.keeps_dead_rows else rows - dead,
        parts=len(plan.splits),
    )


def check_dataset_name(name: str) -> None:
    """Raise ConfigError if nothing can be published under a name; the Hub is not asked."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"{name!r} is not a name on the Hub: {error}") from None
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"can't publish {name}: HF_HUB_OFFLINE is set")
    if get_token() is None:
        raise ConfigError(f"can't publish {name}: log in with `hf auth login`, or set HF_TOKEN")


def _commit(api: HfApi, repo: str, ledger: Ledger, plan: Plan, card: HubCard) -> CommitInfo:
    """Upload what the dataset lacks, and return its last commit."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = api.list_repo_files(repo, repo_type="dataset")
    text = card.render(_read_card(repo) if "README.md" in there else None)
    additions = list(_upload(api, repo, ledger, plan.splits))
    ours = {addition.path_in_repo for addition in additions}
    stale = [file for file in there if _PART.fullmatch(file) and file not in ours]
    operations = [
        *additions,
        *(CommitOperationDelete(file) for file in stale),
        CommitOperationAdd("README.md", text.encode()),
    ]
    for first in range(0, len(operations), _COMMIT_FILES):
        commit = api.create_commit(
            repo,
            operations[first : first + _COMMIT_FILES],
            commit_message="Rows computed with pipemill",
            repo_type="dataset",
        )
    return commit


def _read_card(repo: str) -> str:
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(repo, "README.md", repo_type="dataset")
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def _upload(
    api: HfApi, repo: str, ledger: Ledger, splits: Sequence[Split]
) -> Iterator[CommitOperationAdd]:
    """Upload the parts without committing them; the Hub skips what it has."""
    from huggingface_hub import CommitOperationAdd

    batch: list[CommitOperationAdd] = []
    size = 0
    for split in splits:
        part = split.part
        data = ledger.read(part)
        if data is None:
            raise ConfigError(f"{ledger.path}/{part} is gone: run the job again, then push")
        batch.append(CommitOperationAdd(place_part(split.number, part, len(splits)), data))
        size += len(data)
        if size >= _UPLOAD_BYTES:
            api.preupload_lfs_files(repo, batch, repo_type="dataset")
            yield from batch
            batch, size = [], 0
    if batch:
        api.preupload_lfs_files(repo, batch, repo_type="dataset")
        yield from batch


@contextmanager
def _explain_refusal(name: str) -> Iterator[None]:
    """Raise RunError in the block if the Hub refuses or does not answer."""
    from huggingface_hub import constants

    try:
        yield
    except (ConfigError, RunError):
        raise
    except Exception as error:  # of the HTTP client, too
        reason = " ".join(str(error).split())[:_LONGEST]
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = "push again to go on"
        if status in (401, 403, 404):
            advice = f"use a token that may write to {name}"
        raise RunError(
            f"can't publish {name} on {constants.ENDPOINT}: {type(error).__name__}: {reason}; "
            f"{advice}"
        ) from error
