"""Outside code within a value: in functions, what they close over, classes, and fields."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from shrinkbench.sources.imports import home_of
from shrinkbench.sources.origin import (
    Origin,
    file_of,
    is_known,
    is_own,
    is_standard,
    origin_of_code,
    origin_of_file,
)

_RUN = (FunctionType, type, functools.partial, ModuleType)
_SIMPLE = (bool, int, float, complex, str, bytes, type(None))


def origins_in(value: object) -> frozenset[Origin]:
    """Origins of all code from outside this package that ``value`` would run.

    Looked into are functions (wrapped ones, closures, defaults), partials, methods, classes with their bases,
    modules, containers, and the fields of this package's values. Code of Python itself is left out, and so is
    that of installed libraries but for those that have registered something.
    """
    found: set[Origin] = set()
    seen: dict[int, object] = {}  # holds what it has seen, so that no identity is given out twice
    open_ = [value]
    while open_:
        current = open_.pop()
        if id(current) in seen or isinstance(current, _SIMPLE):
            continue
        seen[id(current)] = current
        found.update(_own_origins(current))
        open_.extend(_within(current))
    return frozenset(found)


def _own_origins(value: object) -> Iterator[Origin]:
    if isinstance(value, FunctionType):
        if not is_own(value.__globals__.get("__name__")) and _counts(value.__code__):
            yield origin_of_code(value.__code__, value.__globals__)
            if file_of(value.__code__) is None:
                yield from _constants_of(value)
    elif isinstance(value, type | ModuleType):
        module = value.__module__ if isinstance(value, type) else value.__name__
        file = _file_of_module(module)
        if file is not None and not is_own(module) and _is_outside(file):
            yield origin_of_file(file)


def _counts(code: CodeType) -> bool:
    file = file_of(code)
    return _is_outside(file) if file is not None else not is_standard(code.co_filename)


def _is_outside(file: Path) -> bool:
    """Neither Python's own nor of an installed library that has registered nothing."""
    if is_standard(str(file)):
        return False
    return home_of(file).package is None or is_known(file)


def _within(value: object) -> Iterator[object]:
    """What ``value`` may call."""
    if isinstance(value, FunctionType):
        yield from (value.__defaults__ or ())
        yield from (value.__kwdefaults__ or {}).values()
        yield from (_content(cell) for cell in value.__closure__ or ())
        yield from vars(value).values()  # __wrapped__, among others
        if file_of(value.__code__) is None and not is_own(value.__globals__.get("__name__")):
            yield from (v for _, v in _globals_of(value) if isinstance(v, _RUN))
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, type):
        if str(value.__module__).partition(".")[0] in sys.stdlib_module_names:
            return
        yield from value.__mro__[1:]
        if _file_of_module(value.__module__) is None:
            yield from vars(value).values()
    elif isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, ModuleType):
        return
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    else:
        yield type(value)
        if dataclasses.is_dataclass(value):
            yield from (getattr(value, field.name) for field in dataclasses.fields(value))
        elif is_own(type(value).__module__) and hasattr(value, "__dict__"):
            yield from vars(value).values()
        elif (wrapped := getattr(value, "__dict__", {}).get("__wrapped__")) is not None:  # such as lru_cache
            yield wrapped


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _file_of_module(name: str) -> Path | None:
    file = getattr(sys.modules.get(name), "__file__", None)
    return _resolved(file) if isinstance(file, str) else None


@functools.lru_cache(maxsize=4096)
def _resolved(file: str) -> Path:
    return Path(file).resolve()


def _globals_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Global names that ``function`` mentions, with their values: there is no file that would hold them."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
        for name in code.co_names:
            if name in function.__globals__:
                yield name, function.__globals__[name]


def _constants_of(function: FunctionType) -> Iterator[Origin]:
    """Simple values that a function without a file depends on: globals, closure, defaults."""
    named = [*_globals_of(function)]
    named += zip(function.__code__.co_freevars, map(_content, function.__closure__ or ()), strict=True)
    named += [("", value) for value in function.__defaults__ or ()]
    named += (function.__kwdefaults__ or {}).items()
    simple = sorted((name, repr(value)) for name, value in named if _is_simple(value))
    if simple:
        yield Origin(codes=frozenset({hashlib.sha256(repr(simple).encode()).hexdigest()}))


def _is_simple(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_is_simple(member) for member in value)
    return isinstance(value, _SIMPLE)


def same_value(one: object, other: object) -> bool:
    """Whether two values do the same: equal, or the same code over equal values.

    >>> def above(limit):
    ...     return lambda x: x > limit
    >>> above(1) == above(1), same_value(above(1), above(1)), same_value(above(1), above(2))
    (False, True, False)
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, FunctionType) and isinstance(other, FunctionType):
        return one.__code__ is other.__code__ and _same_all(_state(one), _state(other))
    if isinstance(one, functools.partial) and isinstance(other, functools.partial):
        return _same_all((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return _same_all([getattr(one, n) for n in names], [getattr(other, n) for n in names])
    if isinstance(one, tuple) and isinstance(other, tuple):
        return _same_all(one, other)
    try:
        return bool(one == other)
    except Exception:  # values that cannot be compared, such as tensors, count as different
        return False


def _state(function: FunctionType) -> list[object]:
    return [*(function.__defaults__ or ()), *(_content(cell) for cell in function.__closure__ or ())]


def _same_all(ones: Any, others: Any) -> bool:
    return len(ones) == len(others) and all(map(same_value, ones, others))
