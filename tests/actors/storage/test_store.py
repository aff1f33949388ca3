"""What a store says of its files."""

from __future__ import annotations

import errno

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pipemill.actors.storage.store import Store


def test_expired_credentials_are_thought_of_where_s3_only_says_bad_request(monkeypatch):
    def refuse(self, path, **options):
        raise OSError(errno.EINVAL, "Bad Request")

    monkeypatch.setattr(MemoryFileSystem, "exists", refuse)
    with pytest.raises(PermissionError, match=r"Bad Request; have the credentials expired\?"):
        Store("memory://expired").exists("part")
