"""Read what the source of transformers says about a class, without importing it.

Importing transformers to ask would import torch, which takes seconds; and a class whose library
is missing can't be asked at all.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The names that transformers gives to libraries, where they are not those of the modules.
_BACKENDS = {
    "vision": "PIL",
    "protobuf": "google.protobuf",
    "mistral-common": "mistral_common",
    "levenshtein": "Levenshtein",
    "audio": "soundfile",
    "sudachi": "sudachipy",
}
# Large classes that need nothing beyond transformers' dependencies: they are not read.
_ROOTS = set(
    "Pipeline ChunkPipeline PreTrainedModel PreTrainedTokenizerBase TokenizersBackend "
    "PythonBackend ProcessorMixin BaseImageProcessor FeatureExtractionMixin "
    "SequenceFeatureExtractor".split()
)


@dataclass(frozen=True, eq=False)
class ClassSource:
    """A class as it is written in a file."""

    file: Path
    node: ast.ClassDef

    def value(self, name: str) -> Any:
        """Return the constant that the class or a base of it assigns, or None.

        If the value is not a constant, its text is returned.
        """
        for source in self.lineage():
            for statement in source.node.body:
                if name in _find_assigned(statement):
                    return _read_constant(statement.value)  # type: ignore[attr-defined]
        return None

    def lineage(self) -> Iterator[ClassSource]:
        """Yield the class, then its bases as far as they are in the same package."""
        yield self
        for base in self.node.bases:
            if isinstance(base, ast.Name) and base.id not in _ROOTS:
                found = _find_named(self.file, base.id)
                if found is not None:
                    yield from found.lineage()

    def libraries(self, methods: Iterable[str] = ("__init__",)) -> set[str]:
        """Return the modules without which the class can't be made, or these methods not run.

        Only what is always asked for counts, not what stands under a condition.
        """
        found: set[str] = set()
        for source in self.lineage():
            found |= _find_required(source.node)
            for method in _find_methods(source.node):
                if method.name in methods:
                    found |= _find_required(method) | _find_asked_for(method)
        return found - {"torch"}

    def made_of(self) -> Iterator[ClassSource]:
        """Yield the class, and those of its file that are made when it is made."""
        known = _find_classes(self.file)
        seen, left = set(), [self.node.name]
        while left:
            name = left.pop()
            if name in seen or name not in known:
                continue
            seen.add(name)
            yield ClassSource(self.file, known[name])
            parts = [m for m in _find_methods(known[name]) if m.name == "__init__"]
            nodes = [n for part in [*known[name].bases, *parts] for n in ast.walk(part)]
            left += [n.id for n in nodes if isinstance(n, ast.Name)]


def find_transformers() -> Path | None:
    """Return where transformers is installed."""
    spec = find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def find_class(name: str, prefix: str, model_type: str = "") -> ClassSource | None:
    """Return a class of a model's code in transformers.

    Args:
        name: such as "MarianTokenizer".
        prefix: what its file's name begins with: "tokenization", "image_processing", …
        model_type: where to look first.
    """
    root = find_transformers()
    folder = find_module(model_type) if model_type else ""
    return _find_class(root / "models", name, prefix, folder) if root else None


# Kept: a class that is in no model's folder takes hundreds of files to miss.
@lru_cache(maxsize=256)
def _find_class(models: Path, name: str, prefix: str, folder: str) -> ClassSource | None:
    first = sorted((models / folder).glob(f"{prefix}_*.py")) if folder else []
    for file in [*first, *sorted(models.glob(f"*/{prefix}_*.py"))]:
        if f"\nclass {name}(" in file.read_text(encoding="utf-8"):
            return find_class_in(file, name)
    return None


def find_class_in(file: Path, name: str) -> ClassSource | None:
    """Return a class of a file, or None if the file or the class is not there."""
    node = _find_classes(file).get(name) if file.is_file() else None
    return None if node is None else ClassSource(file, node)


def list_arguments(source: ClassSource) -> set[str]:
    """Return the names of the arguments that a class is made of."""
    for one in source.lineage():
        for method in _find_methods(one.node):
            if method.name == "__init__":
                return {a.arg for a in [*method.args.args, *method.args.kwonlyargs]}
    return set()


def find_module(model_type: str) -> str:
    """Return the folder of transformers/models in which a type of model is."""
    table = read_mapping("auto_mappings", "SPECIAL_MODEL_TYPE_TO_MODULE_NAME")
    return str(table.get(model_type, model_type)).replace("-", "_")


def read_mapping(file: str, name: str) -> Mapping[str, Any]:
    """Return a table of transformers/models/auto, such as TOKENIZER_MAPPING_NAMES."""
    path = _find_auto_file(file)
    return {} if path is None else _read_mapping(path, name)


def _find_auto_file(name: str) -> Path | None:
    root = find_transformers()
    path = root / "models" / "auto" / f"{name}.py" if root else None
    return path if path is not None and path.is_file() else None


@lru_cache(maxsize=64)
def _read_mapping(path: Path, name: str) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for node in ast.walk(_parse_file(path)):
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in _find_assigned(node):
            found |= _read_pairs(node.value)
    return found


def read_names(file: str, name: str) -> set[str]:
    """Return a set of names of transformers/models/auto."""
    path = _find_auto_file(file)
    body = [] if path is None else _parse_file(path).body
    assigned = [n for n in body if name in _find_assigned(n)]
    return {x for n in assigned for x in _read_literal(n.value) or ()}  # type: ignore[attr-defined]


def _read_pairs(node: ast.expr | None) -> dict[str, Any]:
    """Return what OrderedDict([(key, value), …]) holds; of a choice, the first alternative."""
    entries = node.args[0].elts if _is_table(node) else []  # type: ignore[union-attr]
    pairs: dict[str, Any] = {}
    for entry in entries:
        if isinstance(entry, ast.Tuple) and len(entry.elts) == 2:
            key, value = entry.elts
            value = value.body if isinstance(value, ast.IfExp) else value
            pairs[_read_literal(key)] = _read_literal(value)
    return pairs


def _is_table(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Call) and bool(node.args) and isinstance(node.args[0], ast.List)


def _read_literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


@lru_cache(maxsize=64)
def _parse_file(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


def _find_classes(file: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _parse_file(file).body if isinstance(node, ast.ClassDef)}


def _find_named(file: Path, name: str) -> ClassSource | None:
    """Return the class that a name stands for in a file, which defines or imports it."""
    if name in _find_classes(file):
        return find_class_in(file, name)
    for node in _parse_file(file).body:
        if not (isinstance(node, ast.ImportFrom) and node.level and node.module):
            continue
        if name in {alias.asname or alias.name for alias in node.names}:
            folder = file.parents[node.level - 1]
            return find_class_in(folder / f"{node.module.replace('.', '/')}.py", name)
    return None


def _find_assigned(statement: ast.stmt) -> set[str]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _read_constant(value: ast.expr | None) -> Any:
    if value is None or isinstance(value, ast.Constant):
        return value and value.value
    found = _read_literal(value)
    return ast.unparse(value) if found is None else found


def _find_methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (child for child in node.body if isinstance(child, ast.FunctionDef))


def _find_required(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """Return the libraries of `@requires(backends=…)`."""
    found: set[str] = set()
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "requires":
            found |= {n for k in decorator.keywords for n in _names(k.value)}
    return found


def _find_asked_for(method: ast.FunctionDef) -> set[str]:
    """Return the libraries that a method asks for in any case, or imports in any case."""
    found: set[str] = set()
    for statement in method.body:
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "requires_backends":
            found |= _names(call.args[1])
        elif isinstance(statement, ast.Try) and _raises(statement):
            found |= {name for line in statement.body for name in _find_imported(line)}
        elif isinstance(statement, ast.If):
            found |= _find_refused_without(statement)
        else:
            found |= _find_imported(statement)
    return found


def _find_refused_without(statement: ast.If) -> set[str]:
    """Return the library of `if not library: raise ImportError(…)`."""
    match statement:
        case ast.If(
            test=ast.UnaryOp(op=ast.Not(), operand=ast.Name(id=library)),
            body=[ast.Raise(exc=ast.Call(func=ast.Name(id="ImportError")))],
        ):
            return {library}
    return set()


def _raises(statement: ast.Try) -> bool:
    return any(isinstance(n, ast.Raise) for h in statement.handlers for n in ast.walk(h))


def _find_imported(statement: ast.stmt) -> set[str]:
    names: list[str] = []
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
        names = [statement.module]
    return {name.partition(".")[0] for name in names} - {"transformers"}


def _names(node: ast.expr) -> set[str]:
    value = _read_literal(node)
    names = [value] if isinstance(value, str) else value or []
    return {_BACKENDS.get(name, name) for name in names if isinstance(name, str)}
