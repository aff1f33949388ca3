"""The docs' site: pages that follow from the code are current, and every page is in its navigation.

`make docs` builds it, and ends at a link that leads nowhere.
"""

from __future__ import annotations

import re
from itertools import chain

import pytest
from pipemill.pipelines.registry import task_names

from docs.hooks import link_to_repository
from tests.support.site_pages import COMMAND, DOCS, FAMILIES, ROOT, make_pages, read_navigation

PAGES = make_pages()


@pytest.mark.parametrize("path", PAGES)
def test_what_follows_from_the_code_is_current(path):
    assert (DOCS / path).read_text(encoding="utf-8") == PAGES[path], f"run {COMMAND}"


def test_every_task_is_on_one_page_with_its_columns():
    listed = list(chain.from_iterable(names for _, names in FAMILIES.values()))
    assert sorted(listed) == sorted(task_names())
    page = PAGES["tasks/questions.md"]
    assert "| `question` | text | or a parameter for all rows |" in page
    assert "| `top_k` | a whole number of at least 1 | `1` |" in page


def test_the_navigation_has_every_page_once():
    listed = list(chain.from_iterable(read_navigation().values()))
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == there


def test_links_that_leave_the_docs_lead_to_the_repository():
    text = "[a](../README.md#install) [b](tasks.md) [c](https://x.org) [d](#here) [e](../configs)"
    assert link_to_repository(text, "index.md", "https://github.com/o/n") == (
        "[a](https://github.com/o/n/blob/main/README.md#install) [b](tasks.md) [c](https://x.org) "
        "[d](#here) [e](https://github.com/o/n/blob/main/configs)"
    )
    text = "[a](../../configs/x.yaml) [b](../tasks.md)"
    assert link_to_repository(text, "tasks/x.md", "R") == (
        "[a](R/blob/main/configs/x.yaml) [b](../tasks.md)"
    )


@pytest.mark.parametrize("path", [path for path in PAGES if path.startswith("tasks/")])
def test_a_page_of_tasks_fits_a_terminal_and_its_links_exist(path):
    lines = PAGES[path].splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith("|")]
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[path]):
        target = ((DOCS / path).parent / link).resolve()
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
