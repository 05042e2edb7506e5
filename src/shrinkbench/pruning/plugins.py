"""Code from outside this package: single files, and installed packages by entry point."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FunctionType, ModuleType

from shrinkbench.errors import SettingsWarning, ShrinkbenchError, is_of_the_code, line_in, said_of
from shrinkbench.files import is_file
from shrinkbench.pruning.method import METHODS, SCORES, PruningMethod
from shrinkbench.registry import Registration, registered_from_outside
from shrinkbench.sources import digest_of, load_file, load_within, origin_of_file, remember_file, unload_file
from shrinkbench.training.global_settings import settings_put_back

GROUP = "shrinkbench.methods"
_LOADED: dict[Path, tuple[str, ...]] = {}


@contextmanager
def _settings_put_back(file: Path) -> Iterator[None]:
    """No file changes the numbers of runs that do not rest on it."""
    with settings_put_back() as changed:
        yield
    if changed:
        warnings.warn(
            f"{file.name} changes settings of the whole process as it is loaded, which are put back: "
            f"{', '.join(changed)}; set them in the functions that need them",
            SettingsWarning,
            stacklevel=2,
        )


load_within(_settings_put_back)


def digest_of_plugin(path: Path | str) -> str | None:
    """SHA-256 over the Python file ``path`` and the files beside it that it imports."""
    return digest_of([origin_of_file(_existing(path))], elsewhere=False)


def load_plugin(path: Path | str, *, digest: str | None = None) -> tuple[str, ...]:
    """Run the Python file ``path`` and return the names that it registers: methods, networks, datasets, ...

    A file that registers nothing may define networks, datasets, recipes and tasks that are named by the file
    (``FILE.py:NAME``). Modules beside the file can be imported from it. A file that was loaded before is not
    run again. The file is code and runs with all rights of this process: load only files that you trust.
    Raises ``ShrinkbenchError`` where it cannot be read, fails, offers nothing, has changed since it was loaded,
    or is not that of ``digest``. A run's key follows the file, what it imports, and what it opens beside itself
    while it is loaded; data that it reads later are not seen.
    """
    file = _existing(path)
    if digest is not None and digest_of_plugin(file) != digest:
        raise ShrinkbenchError(f"the plug-in {path} was edited after the runs were planned; start again")
    before = len(registered_from_outside())
    try:
        module = load_file(file)
    except ShrinkbenchError as error:
        raise ShrinkbenchError(f"plug-in {path}: {error}") from None
    except BaseException as error:  # whatever class the file raises
        if not is_of_the_code(error):
            raise
        raise ShrinkbenchError(f"the plug-in {path} fails{line_in(file, error)}: {said_of(error)}") from error
    if file in _LOADED:
        return _LOADED[file]
    added = registered_from_outside()[before:] or _registered_by(file)
    remember_file(file)
    if not added and digest is None and not _defines_parts(module):
        unload_file(file)
        raise ShrinkbenchError(
            f"the plug-in {path} registers nothing; decorate a function with @shrinkbench.pruning_method, "
            "add to a registry such as shrinkbench.models.MODELS, or define what FILE.py:NAME can name"
        )
    _LOADED[file] = _names(added)
    return _LOADED[file]


def _defines_parts(module: ModuleType) -> bool:
    """Whether the file defines a function or class: it may be named as ``FILE.py:NAME``."""
    return any(
        isinstance(value, FunctionType | type) and value.__module__ == module.__name__
        for value in vars(module).values()
    )


def _existing(path: Path | str) -> Path:
    if not is_file(Path(path)):  # first: what is no path, or a link to itself, has no place
        raise ShrinkbenchError(f"there is no plug-in file {path}; give a Python file that registers something")
    file = Path(path).resolve()
    if file.suffix != ".py":
        raise ShrinkbenchError(f"the plug-in {path} is not a Python file; its name must end in .py")
    return file


def load_entry_points() -> tuple[str, ...]:
    """Register what installed packages offer in the group ``shrinkbench.methods``.

    An entry point names a module that registers methods, networks, datasets, ... when it is imported, or a
    ``PruningMethod``. Returns the names that were added; calling it again adds nothing.
    """
    before = len(registered_from_outside())
    for entry in _offered(tuple((place, _changed_at(place)) for place in sys.path)):
        try:
            found = entry.load()
            if isinstance(found, PruningMethod) and found.name not in METHODS:
                METHODS.add(found.name, found, origin=found.origin)
        except BaseException as error:
            if not is_of_the_code(error):
                raise
            raise ShrinkbenchError(
                f"the entry point '{entry.name}' of group {GROUP} ({entry.value}) fails: {said_of(error)}; "
                "mend or uninstall that package"
            ) from error
    return _names(registered_from_outside()[before:])


@lru_cache(maxsize=1)
def _offered(places: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    """The entry points of what is installed in ``places``, which change with each installation."""
    return tuple(entry_points(group=GROUP))


def _changed_at(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


def _registered_by(file: Path) -> tuple[Registration, ...]:
    """What ``file`` has registered already, for itself or imported by another plug-in."""
    own = origin_of_file(file).files
    return tuple(each for each in registered_from_outside() if own <= each.origin.files)


def _names(added: tuple[Registration, ...]) -> tuple[str, ...]:
    """Names of what was added; a method's score goes by the method."""
    methods = [METHODS.get(each.name) for each in added if each.name and each.kind == METHODS.kind]
    scores = {method.score.__name__ for method in methods}
    return tuple(
        each.name for each in added if each.name and not (each.kind == SCORES.kind and each.name in scores)
    )
