"""The pages of the docs' site that follow from the code: families of tasks, names, llms.txt.

`python -m tests.support.site_pages` writes them below docs/.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import yaml
from pipemill.actors.columns import describe
from pipemill.actors.task import Column
from pipemill.jobs.tasks import TaskSummary, tasks
from pipemill.pipelines.registry import find_task
from pipemill.pipelines.restored import HOMES

import pipemill

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
COMMAND = "python -m tests.support.site_pages"
# Each page: its title, and its tasks in their order.
FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "text": (
        "Labels for texts",
        ("text-classification", "zero-shot-classification", "token-classification", "fill-mask"),
    ),
    "embeddings": ("Vectors of texts", ("feature-extraction",)),
    "writing": (
        "Texts that are written",
        (
            "text-generation",
            "conversational",
            "text2text-generation",
            "summarization",
            "translation",
        ),
    ),
    "questions": (
        "Questions to texts and tables",
        ("question-answering", "table-question-answering"),
    ),
    "image-questions": (
        "Questions to images",
        ("document-question-answering", "visual-question-answering"),
    ),
    "images": (
        "Labels and vectors of images",
        ("image-classification", "zero-shot-image-classification", "image-feature-extraction"),
    ),
    "places": (
        "Places in images",
        (
            "object-detection",
            "zero-shot-object-detection",
            "image-segmentation",
            "mask-generation",
        ),
    ),
    "image-to-image": (
        "Images to images",
        ("depth-estimation", "keypoint-matching", "image-to-image"),
    ),
    "media-to-text": (
        "Texts from images, audio and video",
        ("image-to-text", "image-text-to-text", "any-to-any", "automatic-speech-recognition"),
    ),
    "audio-video": (
        "Audio and video",
        (
            "audio-classification",
            "zero-shot-audio-classification",
            "text-to-audio",
            "video-classification",
        ),
    ),
    "others": ("Decisions", ("decision",)),
}
# Marks of Markdown that a line of llms.txt does without.
_PLAIN = str.maketrans("", "", "`*")


def make_pages() -> dict[str, str]:
    """Return the text of each page, by its path below docs/."""
    by_name = {task.name: task for task in tasks()}
    pages = {
        f"tasks/{name}.md": _family_page(title, [by_name[task] for task in names])
        for name, (title, names) in FAMILIES.items()
    }
    pages["reference.md"] = _reference_page()
    return pages | {"llms.txt": _llms_text(pages)}


def read_navigation() -> dict[str, dict[str, str]]:
    """Return the sections of mkdocs.yml: the titles of their pages, by path below docs/."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    sections = {}
    for section in config["nav"]:
        ((title, pages),) = section.items()
        listed = pages if isinstance(pages, list) else [section]
        sections[title] = {path: name for page in listed for name, path in page.items()}
    return sections


def _reference_page() -> str:
    verbs = [name for name in pipemill.__all__ if name.islower()]
    classes = [name for name in pipemill.__all__ if not name.islower()]
    parts = [
        "# Functions and classes",
        f"<!-- written by {COMMAND} -->",
        "The public names, from their docstrings: the site shows these here, and so does "
        "`help(pipemill.run)` in Python.\nExamples are in [python-api.md](python-api.md).",
    ]
    for title, names in (("Functions", verbs), ("Classes", classes)):
        parts += [f"## {title}", *(f"::: pipemill.{name}" for name in names)]
    return "\n\n".join(parts) + "\n"


def _family_page(title: str, members: list[TaskSummary]) -> str:
    parts = [
        f"# {title}",
        f"<!-- written by {COMMAND} -->",
        textwrap.fill(
            f"The columns, parameters and defaults of {', '.join(f'`{t.name}`' for t in members)}. "
            "What holds for all tasks, such as long texts and mapped columns, is in "
            "[tasks.md](../tasks.md).",
            width=120,
            break_on_hyphens=False,
        ),
        *(part for task in members for part in _describe_task(task)),
    ]
    return "\n\n".join(parts) + "\n"


def _describe_task(task: TaskSummary) -> list[str]:
    aliases = ", ".join(f"`{alias}`" for alias in task.aliases)
    notes = [f"Also called {aliases}."] if aliases else []
    if task.name in HOMES:
        notes.append("Restored: transformers 5 removed it.")
    notes.append(f"An example: [`configs/{task.name}.yaml`](../../configs/{task.name}.yaml).")
    one_of = find_task(task.name).one_of
    columns = ["| input column | holds | |", "| --- | --- | --- |"]
    columns += [_column_line(column, one_of) for column in task.reads]
    parameters = ["| parameter | values | default |", "| --- | --- | --- |"]
    alike: dict[str, list[str]] = {}
    for name, parameter in task.parameters.items():
        cells = f"{_cell(parameter.wanted())} | `{_cell(json.dumps(parameter.default))}`"
        alike.setdefault(cells, []).append(f"`{name}`")
    parameters += [f"| {', '.join(names)} | {cells} |" for cells, names in alike.items()]
    added = "\n".join(f"- {part}" for part in task.adds.split("; "))
    parts = [f"## {task.name}", "\n".join(notes), "\n".join(columns), f"It adds:\n\n{added}"]
    return [*parts, "\n".join(parameters)] if task.parameters else parts


def _column_line(column: Column, one_of: tuple[str, ...]) -> str:
    notes = [] if column.required else ["optional"]
    if column.name in one_of:
        notes = [f"at least one of {', '.join(one_of)}"]
    if column.parameter:
        notes.append("or a parameter for all rows")
    return f"| `{column.name}` | {_cell(describe(column.kind))} | {', '.join(notes)} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _llms_text(pages: dict[str, str]) -> str:
    """Return the site's pages with a line on each, as https://llmstxt.org describes."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    summary = readme.split("\n\n")[1].replace("\n", " ")
    lines = ["# pipemill", "", f"> {_without_links(summary)}"]
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    for section, listed in read_navigation().items():
        lines += ["", f"## {section}", ""]
        for path, title in listed.items():
            text = pages.get(path) or (DOCS / path).read_text(encoding="utf-8")
            url = config["site_url"] + path.removesuffix("index.md").removesuffix(".md")
            end = "" if path == "index.md" else "/"
            lines.append(f"- [{title}]({url}{end}): {_first_sentence(text)}")
    return "\n".join(lines) + "\n"


def _first_sentence(page: str) -> str:
    plain = re.sub(r"^(#.*|<!--.*-->|!\[.*)$", "", page, flags=re.MULTILINE).strip()
    paragraph = _without_links(plain.split("\n\n")[0].replace("\n", " "))
    return re.split(r"(?<=[.:]) (?=[A-Z`])", paragraph)[0].translate(_PLAIN).rstrip(":")


def _without_links(text: str) -> str:
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)


if __name__ == "__main__":
    for path, text in make_pages().items():
        (DOCS / path).parent.mkdir(exist_ok=True)
        (DOCS / path).write_text(text, encoding="utf-8")
