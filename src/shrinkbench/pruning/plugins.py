"""Methods from outside this package: single files, and installed packages by entry point."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import entry_points
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError, line_in
from shrinkbench.pruning.method import METHODS, PruningMethod

GROUP = "shrinkbench.methods"
_LOADED: dict[Path, tuple[str, ...]] = {}


def load_plugin(path: Path | str) -> tuple[str, ...]:
    """Run the Python file ``path`` and return the names of the methods that it registers.

    A file that was loaded before is not run again. The file is code and runs with all rights of this
    process: load only files that you trust. Raises ``ShrinkbenchError`` where it cannot be read, fails, or
    registers nothing.
    """
    file = Path(path).resolve()
    if file in _LOADED:
        return _LOADED[file]
    if not file.is_file():
        raise ShrinkbenchError(f"there is no plug-in file {path}; give a Python file that registers a method")
    name = f"shrinkbench_plugin_{file.stem}_{len(_LOADED)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ShrinkbenchError(f"the plug-in {path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    before = set(METHODS.names())
    sys.modules[name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except ShrinkbenchError as error:
        raise ShrinkbenchError(f"plug-in {path}: {error}") from None
    except Exception as error:
        line = line_in(file, error)
        raise ShrinkbenchError(f"the plug-in {path} fails{line}: {type(error).__name__}: {error}") from error
    added = tuple(method for method in METHODS.names() if method not in before)
    if not added:
        raise ShrinkbenchError(
            f"the plug-in {path} registers no method; decorate a function with @shrinkbench.pruning_method"
        )
    _LOADED[file] = added
    return added


def load_entry_points() -> tuple[str, ...]:
    """Register what installed packages offer in the group ``shrinkbench.methods``.

    An entry point names a module that registers methods when it is imported, or a ``PruningMethod``.
    Returns the names that were added; calling it again adds nothing.
    """
    before = set(METHODS.names())
    for entry in entry_points(group=GROUP):
        try:
            found = entry.load()
            if isinstance(found, PruningMethod) and found.name not in METHODS:
                METHODS.add(found.name, found)
        except Exception as error:
            raise ShrinkbenchError(
                f"the entry point '{entry.name}' of group {GROUP} ({entry.value}) fails: "
                f"{type(error).__name__}: {error}; mend or uninstall that package"
            ) from error
    return tuple(method for method in METHODS.names() if method not in before)
