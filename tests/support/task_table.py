"""The table of tasks in docs/tasks.md, generated from the registry.

`python -m tests.support.task_table` writes it into the page.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipemill.pipelines.registry import ALIASES, find_task, task_names
from pipemill.pipelines.restored import HOMES

PAGE = Path(__file__).parent.parent.parent / "docs" / "tasks.md"
COMMAND = "python -m tests.support.task_table"
_TABLE = re.compile(rf"(?<=<!-- begin: {COMMAND} -->\n).*?(?=<!-- end -->)", re.DOTALL)


def task_table() -> str:
    """Return a Markdown table with one line for each task of pipemill."""
    lines = [
        "| task | reads | adds | transformers 5 |",
        "| --- | --- | --- | --- |",
        *(_line(name) for name in task_names()),
    ]
    return "\n".join(lines) + "\n"


def insert_table(page: str) -> str:
    """Return the page with the current table between its marks."""
    page, count = _TABLE.subn(lambda _: task_table(), page)
    if count != 1:
        raise ValueError(f"the page has {count} places for the table, instead of one")
    return page


def _line(name: str) -> str:
    task = find_task(name)
    aliases = [alias for alias, task_name in ALIASES.items() if task_name == name]
    if name == "translation":
        aliases.append("translation_XX_to_YY")
    names = f"`{name}`" + "".join(f"<br>`{alias}`" for alias in sorted(aliases))
    reads = ", ".join(f"`{c.name}`{'' if c.required else '?'}" for c in task.inputs)
    adds = task.adds.replace("|", r"\|")
    return f"| {names} | {reads} | {adds} | {'restored' if name in HOMES else 'yes'} |"


if __name__ == "__main__":
    PAGE.write_text(insert_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
