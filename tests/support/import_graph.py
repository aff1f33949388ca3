"""Which module of pipemill imports which, read from the sources."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

FOLDERS = ("actors", "pipelines", "jobs")  # each may import those before it
PUBLIC = "pipemill"

Graph = Mapping[str, Collection[str]]


def read_imports(root: Path) -> dict[str, set[str]]:
    """Return for each module the modules that it imports, inside functions included.

    Imports under `if TYPE_CHECKING:` are left out. Names are without the leading `pipemill.`,
    but for the modules of the public folder itself.
    """
    files = {
        _module_name(file.relative_to(root)): file
        for folder in (PUBLIC, *FOLDERS)
        for file in sorted((root / folder).rglob("*.py"))
    }
    return {
        name: {found for found in _imports(file, root, files) if found != name}
        for name, file in files.items()
    }


def _module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imports(file: Path, root: Path, known: Collection[str]) -> Iterator[str]:
    package = file.relative_to(root).parts[:-1]
    for name in _imported_names(ast.parse(file.read_text()), package):
        # By its bare name a folder would be a second copy of itself.
        assert name.split(".")[0] not in FOLDERS, f"{file}: import it as pipemill.{name}"
        # An imported name is a module, or something in one.
        for wanted in (name, name.rpartition(".")[0]):
            found = _short_name(wanted)
            if found in known:
                yield found
                break


def _short_name(name: str) -> str:
    short = name.removeprefix(f"{PUBLIC}.")
    return short if short.split(".")[0] in FOLDERS else name


def _imported_names(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Yield full names, `from` imports with the name that is taken."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _is_for_types(node.test):
            for other in node.orelse:
                yield from _imported_names(ast.Module([other], []), package)
        elif isinstance(node, ast.Import):
            # By its own name a module counts as a name in itself.
            yield from (f"{alias.name}." for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute_base(node, package)
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield from _imported_names(node, package)


def _is_for_types(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _absolute_base(node: ast.ImportFrom, package: tuple[str, ...]) -> str:
    if not node.level:
        return node.module or ""
    home = package[: len(package) - node.level + 1]
    full = home if home[:1] == (PUBLIC,) else (PUBLIC, *home)
    return ".".join([*full, *filter(None, [node.module])])


def find_upward_imports(graph: Graph) -> list[tuple[str, str]]:
    """Return the imports against jobs -> pipelines -> actors -> errors -> interrupts.

    The public folder is above all, except for these two; its version may be read by all.
    """
    return [
        (name, found)
        for name, imported in sorted(graph.items())
        for found in sorted(imported)
        if _height(found) > _height(name) and found != PUBLIC
    ]


def _height(name: str) -> int:
    order = ("pipemill.interrupts", "pipemill.errors", *FOLDERS, PUBLIC)
    return order.index(name if name in order else name.split(".")[0])


def find_circles(graph: Graph) -> list[frozenset[str]]:
    """Return the sets of modules that import each other, directly or by way of others."""
    reached = {name: _reachable(graph, name) for name in graph}
    circles = {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in graph
        if name in reached[name]
    }
    return sorted(circles, key=sorted)


def _reachable(graph: Graph, name: str) -> set[str]:
    """Return what a module imports, and what that imports, and so on."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        fresh = set(graph[waiting.pop()]) - seen
        seen |= fresh
        waiting += fresh
    return seen


def find_longest_chain(graph: Graph, folder: str) -> list[str]:
    """Return the longest chain of imports inside a folder, its length being the folder's levels."""
    inside = {
        name: [found for found in imported if found.split(".")[0] == folder]
        for name, imported in graph.items()
        if name.split(".")[0] == folder
    }
    chains: dict[str, list[str]] = {}

    def chain(name: str, above: tuple[str, ...] = ()) -> list[str]:
        if name not in chains:
            lower = [chain(found, (*above, name)) for found in inside[name] if found not in above]
            chains[name] = [name, *max(lower, key=len, default=[])]
        return chains[name]

    return max((chain(name) for name in sorted(inside)), key=len)
