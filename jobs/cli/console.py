"""Write results to a terminal, a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Protocol

from pipemill.errors import ConfigError, escape_controls

from ..monitoring.messages import has_lost_reader, is_terminal, shows_text
from ..output.text_table import Block, TextTable, join_blocks

# Rich looks at every cell before it shows the first: of very many it takes seconds.
_RICH_ROWS = 2000


class Result(Protocol):
    """What a verb found."""

    def blocks(self) -> list[Block]: ...

    def to_json(self) -> str: ...


def print_result(result: Result) -> None:
    """Write a result: to stderr for a reader, to stdout as one line of JSON.

    The exit status is that of the result, also if nobody reads stdout any more.
    """
    print_blocks(result.blocks(), sys.stderr)
    try:
        print(result.to_json(), flush=True)
    except BrokenPipeError:
        if not has_lost_reader():
            raise


def print_blocks(blocks: Iterable[Block], file: IO[str]) -> None:
    """Write text and tables; with rich on a terminal."""
    if file is sys.stderr and not shows_text():
        return
    blocks = list(blocks)
    rows = sum(len(block.rows) for block in blocks if isinstance(block, TextTable))
    if not is_terminal(file) or rows > _RICH_ROWS:
        print(join_blocks(blocks), file=file, flush=True)
        return
    from rich.console import Console

    console = Console(file=file, markup=False, emoji=False, highlight=False)
    for block in blocks:
        console.print(escape_controls(block) if isinstance(block, str) else block)


def write_text(path: str, text: str) -> None:
    """Write a file on this machine. Raises ConfigError."""
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"can't write {path}: {error.strerror or error}") from error
