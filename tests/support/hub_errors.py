"""The errors of huggingface_hub for answers of a Hub that refuses, or that is broken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError


def answer(monkeypatch: Any, status: int, kind: type[HfHubHTTPError] = HfHubHTTPError) -> None:
    """Let each file that is asked for get this answer, and a broken Hub seem reachable."""
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    refused = kind(f"{status} for a file", response=response)

    def download(*_: Any, **__: Any) -> str:
        if status < 500:
            raise refused
        # What the library makes of it when its own tries are over.
        raise LocalEntryNotFoundError("An error happened") from refused

    def list_files(*_: Any, **__: Any) -> list[str]:
        raise refused

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.list_repo_files", list_files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub")
    monkeypatch.setattr("pipemill.jobs.planning.models.find_on_hub._is_reachable", lambda url: True)
