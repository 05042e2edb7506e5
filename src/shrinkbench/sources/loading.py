"""Running a plug-in file, with the neighbours that it imports and no others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.sources.imports import dotted_name, home_of
from shrinkbench.sources.opened import watch
from shrinkbench.sources.origin import forget, modules_of, modules_of_elsewhere, resolved, unchanged

_PLUGINS: dict[Path, ModuleType] = {}
_ADDED: dict[Path, tuple[set[str], set[str]]] = {}  # names of neighbours, and modules, that came with a plug-in
_WITHIN: list[Callable[[Path], AbstractContextManager[object]]] = []


def load_within(context: Callable[[Path], AbstractContextManager[object]]) -> None:
    """From now on every file is run inside ``context(file)``."""
    _WITHIN.append(context)


class _FromSource(SourceFileLoader):
    """Compiles what was digested: bytecode in a cache may be that of an older text of equal size."""

    def get_code(self, fullname: str) -> CodeType:
        path = Path(self.path)
        unchanged(path)
        code: CodeType = self.source_to_code(self.get_data(self.path), self.path)
        return code


class _Neighbours(MetaPathFinder):
    """Finds modules beside plug-ins, by names that their files mention; folders do not come into ``sys.path``.

    That holds for imports within functions too, which happen when the plug-in has long been loaded.
    """

    def __init__(self) -> None:
        self.places: dict[str, Path] = {}  # module -> its file, or its folder where that has no __init__.py

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        place = self.places.get(fullname)
        if place is None:
            return None
        if place.is_dir():
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(place)]
            return spec
        return _spec_of(fullname, place)


_NEIGHBOURS = _Neighbours()


def _spec_of(name: str, file: Path) -> ModuleSpec | None:
    if file.name.endswith(tuple(EXTENSION_SUFFIXES)):
        return spec_from_file_location(name, file)
    folder = [str(file.parent)] if file.stem == "__init__" else None
    loader = _FromSource(name, str(file))
    return spec_from_file_location(name, file, loader=loader, submodule_search_locations=folder)


def load_file(file: Path) -> ModuleType:
    """Run the Python file and return its module; one that is loaded already, as whatever, is not run again.

    A file in a package is loaded as part of it, so that it may import relatively. Raises ``ShrinkbenchError``
    where another file is loaded under the name of a neighbour that it imports, or where a neighbour has changed
    since another plug-in loaded it.
    """
    modules = modules_of(file)
    for neighbour in modules.values():
        unchanged(neighbour)
    if file in _PLUGINS:
        return _PLUGINS[file]
    root = home_of(file).root
    own = dotted_name(file, root)
    in_package = "." in own or file.stem == "__init__"
    name = own if in_package else f"shrinkbench_plugin_{file.stem}_{len(_PLUGINS)}"
    before = set(sys.modules)
    claimed = _claim(file, {n: path for n, path in modules.items() if in_package or n != own}, root)
    try:
        with ExitStack() as stack:
            for context in (*_WITHIN, watch):
                stack.enter_context(context(file))
            _PLUGINS[file] = import_module(name) if in_package else _run(name, file)
        modules_of_elsewhere(file)  # as they are now
    finally:
        _ADDED[file] = (claimed, (set(sys.modules) - before) & {name, *claimed})
        if file not in _PLUGINS:
            unload_file(file)
    return _PLUGINS[file]


def unload_file(file: Path) -> None:
    """Let a file that failed, or registered nothing, be mended and loaded again with its neighbours."""
    _PLUGINS.pop(file, None)
    claimed, modules = _ADDED.pop(file)
    for name in claimed:
        del _NEIGHBOURS.places[name]
    for name in modules:
        del sys.modules[name]
    forget(file)


def _run(name: str, file: Path) -> ModuleType:
    for module in tuple(sys.modules.values()):
        if _file_of(module) == file:  # imported by another plug-in
            return module
    spec = _spec_of(name, file)
    if spec is None or spec.loader is None:
        raise ShrinkbenchError(f"the plug-in {file} is not a Python file; its name must end in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a module up by its name
    spec.loader.exec_module(module)
    return module


def _claim(file: Path, modules: dict[str, Path], root: Path) -> set[str]:
    """Let the modules be found from now on; returns the names that are new."""
    places = dict(modules)
    for name in modules:
        parents = name.split(".")[:-1]
        for count in range(1, len(parents) + 1):
            places.setdefault(".".join(parents[:count]), root.joinpath(*parents[:count]))
    for name, place in places.items():
        other = _NEIGHBOURS.places.get(name) or (_file_of(sys.modules[name]) if name in sys.modules else place)
        if other != place and not place.is_dir():
            raise ShrinkbenchError(
                f"the plug-in {file} imports '{name}' from its own folder, but "
                f"{other or 'another module'} is loaded under that name; rename one of them"
            )
    new = places.keys() - _NEIGHBOURS.places.keys()
    _NEIGHBOURS.places.update(places)
    for name, place in modules.items():
        if place in _PLUGINS:
            sys.modules.setdefault(name, _PLUGINS[place])
    if _NEIGHBOURS not in sys.meta_path:
        sys.meta_path.insert(0, _NEIGHBOURS)
    return new


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return resolved(file) if isinstance(file, str) else None
