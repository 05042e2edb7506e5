"""Pruning methods from outside this package: files and entry points."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError

GROUP = "shrinkbench.methods"


def load_plugin(path: Path | str) -> None:
    """Run the Python file ``path`` once; the methods that it registers are then known by name."""
    file = Path(path).resolve()
    if not file.is_file():
        raise ShrinkbenchError(f"there is no plug-in file {path}; check the path")
    _load_file(file)


@cache
def _load_file(file: Path) -> None:
    name = f"shrinkbench_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ShrinkbenchError(f"the plug-in {file} is not a Python file; give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ShrinkbenchError:
        raise
    except Exception as error:  # a plug-in may fail in any way
        raise ShrinkbenchError(f"the plug-in {file} fails: {type(error).__name__}: {error}") from error


@cache
def load_entry_points() -> None:
    """Import what installed packages offer in the entry-point group ``shrinkbench.methods``."""
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # likewise
            raise ShrinkbenchError(
                f"the method plug-in '{entry.name}' of an installed package fails: "
                f"{type(error).__name__}: {error}; mend or uninstall it"
            ) from error
