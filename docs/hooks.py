"""Links of the docs' site: what lies outside docs/ is shown where the code is."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Point relative links that leave docs/ to the repository; MkDocs calls this for each page."""
    return link_to_repository(markdown, page.file.src_uri, config.repo_url)


def link_to_repository(markdown: str, page: str, repository: str) -> str:
    """Return the text with links into the repository.

    Args:
        markdown: the page's text.
        page: its path below docs/.
        repository: the repository's URL.
    """
    home = posixpath.dirname(page)

    def replace(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", home, link[1]))
        return link[1] if path.startswith("docs/") else f"{repository}/blob/main/{path}"

    return _LINK.sub(replace, markdown)
