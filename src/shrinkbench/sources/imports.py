"""Which files a Python file imports that lie beside it, read from its text without running it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

PACKAGE = "shrinkbench"


@dataclass(frozen=True)
class Home:
    """The folder ``root`` from which imports among neighbours are resolved.

    ``package`` is set in a folder of installed libraries: only what has this top-level name is a neighbour.
    """

    root: Path
    package: str | None

    def holds(self, file: Path) -> bool:
        """Whether ``file`` is a neighbour."""
        if not file.is_relative_to(self.root):
            return False
        if self.package is None:
            return home_of(file).package is None
        return dotted_name(file, self.root).partition(".")[0] == self.package


@lru_cache(maxsize=4096)
def home_of(file: Path) -> Home:
    """Where imports of ``file`` are resolved: beside its outermost package, or beside itself."""
    root = file.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    installed = holds_libraries(root)
    return Home(root, dotted_name(file, root).partition(".")[0] if installed else None)


@lru_cache(maxsize=4096)
def holds_libraries(folder: Path) -> bool:
    """Whether ``folder`` is one that libraries are installed into, or lies in such a one."""
    if {"site-packages", "dist-packages"} & set(folder.parts):
        return True
    return folder.is_dir() and next(folder.glob("*.dist-info"), None) is not None


def dotted_name(file: Path, root: Path) -> str:
    """The name that ``file`` is imported by.

    >>> dotted_name(Path("/a/pack/part.py"), Path("/a"))
    'pack.part'
    >>> dotted_name(Path("/a/pack/__init__.py"), Path("/a"))
    'pack'
    """
    parts = file.relative_to(root).parts
    parts = (*parts[:-1], parts[-1].partition(".")[0])
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_beside(file: Path) -> dict[str, Path]:
    """``file`` and every neighbour that it imports, directly or not, by the name of the module."""
    home = home_of(file)
    found = {dotted_name(file, home.root): file}
    package = dotted_name(file, home.root).rpartition(".")[0]
    found.update(_files_of(package, home))
    open_ = list(found.items())
    while open_:
        name, path = open_.pop()
        for wanted in _imported_by(path, name, home):
            for module, neighbour in _files_of(wanted, home).items():
                if module not in found and neighbour != file:
                    found[module] = neighbour
                    open_.append((module, neighbour))
    return found


def _imported_by(path: Path, name: str, home: Home) -> Iterator[str]:
    """Names of modules that the file may import: of ``from a import b``, both ``a`` and ``a.b``."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # compiled, or broken: it imports nothing that can be read here
        return
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    importers = _importers(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield base
            for alias in node.names:
                yield from _children(base, home) if alias.name == "*" else (f"{base}.{alias.name}",)
        elif isinstance(node, ast.Call) and _called(node) in importers:
            named = (keyword.value for keyword in node.keywords if keyword.arg == "name")
            for argument in (*node.args[:1], *named):
                # A name that is put together or looked up: any text of the file may be it.
                texts = [argument] if isinstance(argument, ast.Constant) else ast.walk(tree)
                yield from (_absolute(text, package) for text in _names_among(texts))


def _importers(tree: ast.AST) -> set[str]:
    """What the functions that import by name are called in a file."""
    return {"import_module", "__import__"} | {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == "import_module" and alias.asname
    }


def _names_among(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Constants that could be names of modules."""
    for node in nodes:
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and all(part.isidentifier() for part in text.lstrip(".").split(".")):
            yield text


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _absolute(name: str, package: str) -> str:
    """``name`` without leading dots; the empty name where the dots lead out of every package.

    >>> _absolute("..part", "pack.sub"), _absolute("part", "pack"), _absolute(".part", "")
    ('pack.part', 'part', '')
    """
    level = len(name) - len(name.lstrip("."))
    if level == 0:
        return name
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    kept = parts[: len(parts) - level + 1]
    return ".".join([*kept, *filter(None, [name[level:]])])


def _children(package: str, home: Home) -> Iterator[str]:
    """What ``from package import *`` may import: every module in it."""
    folder = home.root.joinpath(*package.split("."))
    if package and folder.is_dir():
        yield from sorted(f"{package}.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__")


def _files_of(name: str, home: Home) -> dict[str, Path]:
    """The neighbours that importing ``name`` runs: those of its packages and its own."""
    parts = name.split(".")
    # The interpreter's own modules come first: they are loaded before a plug-in is.
    if not name or parts[0] in sys.stdlib_module_names or parts[0] == PACKAGE:
        return {}
    if home.package is not None and parts[0] != home.package:
        return {}
    files: dict[str, Path] = {}
    for count in range(1, len(parts) + 1):
        module, place = ".".join(parts[:count]), home.root.joinpath(*parts[:count])
        if (place / "__init__.py").is_file():
            files[module] = place / "__init__.py"
        elif (file := _file_at(place)) is not None:
            files[module] = file
            break
        elif not place.is_dir() or (count == 1 and _is_found_elsewhere(module)):
            break
    return files


def _file_at(place: Path) -> Path | None:
    for suffix in (*EXTENSION_SUFFIXES, ".py"):
        file = place.with_name(place.name + suffix)
        if file.is_file():
            return file
    return None


def _is_found_elsewhere(name: str) -> bool:
    """Whether a file has the name ``name`` already: a folder without ``__init__.py`` comes last."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return name in sys.modules
    return spec is not None and spec.origin is not None


def modules_elsewhere(modules: Mapping[str, Path]) -> dict[str, Path]:
    """What ``modules`` import, directly or not, from other folders that are no libraries, such as PYTHONPATH.

    Found as the interpreter would find it now: to be asked once the modules have run.
    """
    found: dict[str, Path] = {}
    open_ = list(modules.items())
    while open_:
        name, path = open_.pop()
        home = home_of(path)
        for wanted in set(_imported_by(path, name, home)):
            place = home if _files_of(wanted, home) else _home_elsewhere(wanted.partition(".")[0])
            for module, file in {} if place is None else _files_of(wanted, place).items():
                if module not in modules and module not in found:
                    found[module] = file
                    open_.append((module, file))
    return found


def _home_elsewhere(name: str) -> Home | None:
    """The folder in which the top-level module ``name`` lies; ``None`` for Python's own and for libraries."""
    if not name or name in sys.stdlib_module_names or name == PACKAGE:
        return None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    origin = None if spec is None else spec.origin
    if origin is None or not Path(origin).is_file():
        return None
    home = home_of(Path(origin))
    return home if home.package is None else None
