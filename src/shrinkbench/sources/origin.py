"""Where code stands that registers something, and the digest of what stands there."""

from __future__ import annotations

import hashlib
import json
import linecache
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from shrinkbench.errors import InputError
from shrinkbench.sources.imports import (
    PACKAGE,
    holds_libraries,
    home_of,
    modules_beside,
    modules_elsewhere,
)

_STANDARD_LIBRARY = Path(os.__file__).resolve().parent
_MODULES: dict[Path, dict[str, Path]] = {}  # file -> it and its neighbours, by module
_CONTENT: dict[Path, str] = {}  # file -> SHA-256 of what it held when it was first seen
_OPENED: dict[Path, set[Path]] = {}  # file -> what it opened beside itself by path while it was loaded
_DIGESTED: dict[str, tuple[tuple[str, Path], ...]] = {}  # digest -> its files, by place relative to the plug-in


@dataclass(frozen=True)
class Origin:
    """Code outside this package: whole files, and digests of code that has none (interactive sessions)."""

    files: frozenset[Path] = frozenset()
    codes: frozenset[str] = frozenset()

    def __or__(self, other: Origin) -> Origin:
        return Origin(self.files | other.files, self.codes | other.codes)


def origin_of_caller() -> Origin | None:
    """The code outside this package that called it; ``None`` where the package itself did when it was imported.

    Where a helper of a plug-in registers on its behalf, both belong to the origin.
    """
    found: Origin | None = None
    first: Path | None = None
    for frame in _frames(sys._getframe(1)):
        own = is_own(frame.f_globals.get("__name__", ""))
        if not own and not is_standard(frame.f_code.co_filename):
            file = file_of(frame.f_code)
            if found is None:
                found, first = origin_of_code(frame.f_code, frame.f_globals), file
            elif file is not None and first is not None and home_of(first).holds(file):
                found |= origin_of_file(file)
        if frame.f_code.co_name == "<module>" and (own or found is not None):
            return found
    return found


def origin_of_maker() -> Origin | None:
    """The outside code that makes the value whose ``__post_init__`` asks; ``None``: this package."""
    for frame in _frames(sys._getframe(1)):
        code = frame.f_code
        if code.co_name not in ("__init__", "__post_init__") and not is_standard(code.co_filename):
            return None if is_own(frame.f_globals.get("__name__")) else origin_of_caller()
    return None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_own(module: object) -> bool:
    """Whether the module of this name belongs to this package."""
    return isinstance(module, str) and (module == PACKAGE or module.startswith(f"{PACKAGE}."))


@lru_cache(maxsize=4096)
def is_standard(filename: str) -> bool:
    """Whether the file belongs to Python itself."""
    if filename.startswith("<"):
        return filename.startswith("<frozen ")
    file = Path(filename).resolve()
    return file.is_relative_to(_STANDARD_LIBRARY) and not holds_libraries(file.parent)


def file_of(code: CodeType) -> Path | None:
    """The file that ``code`` was read from; ``None`` in interactive sessions."""
    file = Path(code.co_filename)
    return resolved(code.co_filename) if file.is_file() else None


def resolved(name: str) -> Path:
    """The path of the file that code was read from; it is asked for all code that runs, again and again."""
    return _resolved(name) if os.path.isabs(name) else Path(name).resolve()  # noqa: PTH117


@lru_cache(maxsize=20_000)
def _resolved(name: str) -> Path:
    return Path(name).resolve()


def origin_of_file(file: Path) -> Origin:
    """``file`` with the neighbours that it imports; what they hold now is what counts."""
    modules_of(file)
    return Origin(files=frozenset({file}))


def origin_of_code(code: CodeType, names: dict[str, Any] | None = None) -> Origin:
    """The file of ``code``; else the text that it was typed as, or the code itself."""
    file = file_of(code)
    if file is not None:
        return origin_of_file(file)
    lines = linecache.getlines(code.co_filename, names)
    return Origin(codes=frozenset({_sha("".join(lines).encode()) if lines else digest_of_code(code)}))


def digest_of_code(code: CodeType) -> str:
    """SHA-256 of what ``code`` does, nested functions included: neither its place nor any address."""
    return _sha(json.dumps(_content(code)).encode())


def _content(value: object) -> object:
    if isinstance(value, CodeType):
        names = [*value.co_names, *value.co_varnames, *value.co_freevars]
        return ["code", value.co_code.hex(), names, [_content(constant) for constant in value.co_consts]]
    if isinstance(value, tuple):
        return ["tuple", *(_content(member) for member in value)]
    if isinstance(value, frozenset):
        return ["set", *sorted(json.dumps(_content(member)) for member in value)]
    return [type(value).__name__, repr(value)]  # a constant of the language: its text has no address


def modules_of(file: Path) -> dict[str, Path]:
    """``file`` and the neighbours that it imports, by module, as they were when ``file`` was first seen."""
    if file not in _MODULES:
        found = modules_beside(file)
        for path in found.values():
            if path not in _CONTENT:
                _CONTENT[path] = _sha(path.read_bytes())
        _MODULES[file] = found
    return _MODULES[file]


def modules_of_elsewhere(file: Path) -> dict[str, Path]:
    """What ``file`` and its neighbours import from other folders that are no libraries, once they have run."""
    return _elsewhere(file, tuple(sys.path))


@lru_cache(maxsize=4096)
def _elsewhere(file: Path, path: tuple[str, ...]) -> dict[str, Path]:
    found = modules_elsewhere(modules_of(file))
    for each in found.values():
        _CONTENT.setdefault(each, _sha(each.read_bytes()))
    return found


def note_opened(file: Path, path: Path) -> None:
    """Let ``path``, which is about to be read for ``file``, be part of its digest."""
    if path not in _OPENED.setdefault(file, set()):
        _CONTENT.setdefault(path, _sha(path.read_bytes()))
        _OPENED[file].add(path)


def forget_passing() -> None:
    """Leave out what was opened and is there no more: a temporary file of somebody's."""
    for opened in _OPENED.values():
        opened -= {path for path in opened if not path.is_file()}


def opened_by(file: Path) -> frozenset[Path]:
    """What ``file``, its neighbours, and code among what they opened, opened by path beside themselves."""
    found: set[Path] = set()
    open_, seen = [*modules_of(file).values(), *modules_of_elsewhere(file).values()], set()
    while open_:
        current = open_.pop()
        if current in seen:
            continue
        seen.add(current)
        opened = _OPENED.get(current, set())
        found |= opened
        open_ += opened
        open_ += [m for path in opened if path.suffix == ".py" for m in modules_of(path).values()]
    code = [m for path in found if path.suffix == ".py" for m in modules_of(path).values()]
    return frozenset(found.union(code))


def is_known(file: Path) -> bool:
    """Whether ``file`` belongs to an origin."""
    return file in _CONTENT


def forget(file: Path) -> None:
    """Let ``file``, which could not be loaded, be mended and loaded again with its neighbours."""
    _elsewhere.cache_clear()
    kept = {path for other, modules in _MODULES.items() if other != file for path in modules.values()}
    kept |= {path for other, opened in _OPENED.items() if other != file for path in opened}
    for path in (*_MODULES.pop(file, {}).values(), *_OPENED.pop(file, set())):
        if path not in kept:
            _CONTENT.pop(path, None)


def unchanged(file: Path) -> str:
    """SHA-256 of ``file``; refused where that is no longer what it held when it was loaded."""
    try:
        now = _sha(file.read_bytes())
    except OSError:
        now = "gone"
    if now != _CONTENT.setdefault(file, now):
        raise InputError(
            f"the file {file} has changed since it was loaded, and the old code still runs here; start again"
        )
    return now


def digest_of(origins: Iterable[Origin | None], *, elsewhere: bool = True) -> str | None:
    """SHA-256 over all code of ``origins``, whatever their order; ``None`` where there is none.

    Files count by content, byte for byte, and by their place relative to the plug-in: a folder can be moved.
    ``elsewhere``: with what they import from other folders, and open beside themselves by path, which is known
    once they have been loaded.
    Raises ``ShrinkbenchError`` where a file has changed since it was loaded.
    """
    codes: set[str] = set()
    files: set[tuple[str, Path]] = set()
    for origin in origins:
        if origin is not None:
            codes |= origin.codes
            for file in origin.files:
                root = home_of(file).root
                files |= {(path.relative_to(root).as_posix(), path) for path in modules_of(file).values()}
                others = modules_of_elsewhere(file).values() if elsewhere else ()
                files |= {(path.relative_to(home_of(path).root).as_posix(), path) for path in others}
                opened = opened_by(file) if elsewhere else ()
                files |= {(path.relative_to(root).as_posix(), path) for path in opened}
    if not codes and not files:
        return None
    digest = digest_of_parts({*(("", code) for code in codes), *((place, unchanged(p)) for place, p in files)})
    _DIGESTED[digest] = tuple(sorted(files))
    return digest


def digest_of_parts(parts: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over files, each by its place relative to the plug-in and the SHA-256 of its content."""
    return _sha(json.dumps(sorted(set(parts))).encode())


def texts_behind(digest: str) -> dict[str, bytes]:
    """The files, by place, over which :func:`digest_of` came to ``digest`` in this process; none: it did not.

    Raises ``ShrinkbenchError`` where one has changed since.
    """
    found = {}
    for place, file in _DIGESTED.get(digest, ()):
        unchanged(file)
        found[place] = file.read_bytes()
    return found


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
