"""Named plug-ins: one registry per axis, explicit look-up, no surprises."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from shrinkbench.errors import ShrinkbenchError, UnknownNameError, one_line, some_of
from shrinkbench.sources import (
    Origin,
    bare_reference,
    digest_of,
    find_object,
    origin_of_caller,
    origins_in,
    split_reference,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Registration:
    """Something from outside this package that a registry holds; a resolver has no name."""

    kind: str
    name: str | None
    origin: Origin


_FROM_OUTSIDE: list[Registration] = []


def registered_from_outside() -> tuple[Registration, ...]:
    """What code from outside this package has put into any registry, in order."""
    return tuple(_FROM_OUTSIDE)


def _where(kind: str) -> str:
    """What shows all names: the command line lists four registries, Python all."""
    return f"`shrinkbench list {_LISTED[kind]}`" if kind in _LISTED else "the registry"


_LISTED = {"pruning method": "methods", "network": "models", "dataset": "datasets", "recipe": "recipes"}


def _canonical(name: str) -> str:
    """Spelling without case, hyphens, underscores and blanks: ``ResNet-20`` and ``resnet20`` are one name."""
    return re.sub(r"[-_\s]", "", name.lower())


class Registry(Generic[T]):
    """A mapping from names to entries that refuses duplicates and suggests near misses.

    A family of names (``torchvision/resnet18``, ``iterative-30``) registers a resolver that turns a name of its
    own into an entry and returns ``None`` for others; resolvers are asked in order of registration. What was
    registered by code from outside this package has that code for its origin.

    >>> colours = Registry[int]("colour")
    >>> colours.add("dark-red", 1)
    1
    >>> colours.get("Dark_Red")
    1
    >>> colours.get("drak-red")
    Traceback (most recent call last):
    ...
    shrinkbench.errors.UnknownNameError: unknown colour 'drak-red'; did you mean 'dark-red'?
    """

    def __init__(
        self, kind: str, *, of: type[T] | None = None, digest: Callable[[T], str | None] = lambda _: None
    ) -> None:
        self.kind = kind
        self._of = of
        self._digest = digest
        self._entries: dict[str, T] = {}
        self._spellings: dict[str, str] = {}
        self._resolvers: list[tuple[Callable[[str], T | None], Origin | None]] = []
        self._origins: dict[str, Origin | None] = {}
        self._make: Callable[[str, object], T] | None = None
        self._made: dict[str, tuple[object, T, Origin]] = {}

    def add(self, name: str, entry: T, *, aliases: tuple[str, ...] = (), origin: Origin | None = None) -> T:
        """Register ``entry``; two entries may not share a spelling. ``origin``: by default the caller."""
        if self._of is not None and not isinstance(entry, self._of):
            raise ShrinkbenchError(
                f"{self.kind} '{one_line(str(name), 60)}' is a {type(entry).__name__}; add a "
                f"{self._of.__name__}"
            )
        for spelling in (name, *aliases):
            taken = self._spellings.get(_canonical(spelling))
            if taken is not None:
                raise ShrinkbenchError(
                    f"{self.kind} '{spelling}' is already registered as '{taken}'; choose another name"
                )
        for spelling in (name, *aliases):
            self._spellings[_canonical(spelling)] = name
        self._entries[name] = entry
        self._origins[name] = self._note(name, origin or origin_of_caller())
        return entry

    def _note(self, name: str | None, origin: Origin | None) -> Origin | None:
        if origin is not None:
            _FROM_OUTSIDE.append(Registration(self.kind, name, origin))
        return origin

    def add_resolver(self, resolve: Callable[[str], T | None]) -> Callable[[str], T | None]:
        """Let ``resolve`` make entries of names that are not registered; usable as a decorator."""
        self._resolvers.append((resolve, self._note(None, origin_of_caller())))
        return resolve

    def take_objects(self, make: Callable[[str, object], T]) -> Callable[[str, object], T]:
        """Let ``FILE.py:NAME`` be a name: ``make(name, object)`` turns what the file holds into an entry."""
        self._make = make
        return make

    def get(self, name: str) -> T:
        """Return the entry; raise ``UnknownNameError`` with the nearest names otherwise."""
        return self._find(name)[0]

    def origin(self, name: str) -> Origin | None:
        """The outside code that registered the entry, or the resolver that makes it; ``None``: built in."""
        return self._find(name)[1]

    def source(self, name: str) -> str | None:
        """SHA-256 over all outside code of the entry: what registered it, and what it would call.

        Of an entry that has a digest of its own (a network by a configuration), it is that.
        """
        entry, origin = self._find(name)
        return self._digest(entry) or digest_of((origin, *origins_in(entry)))

    def _find(self, name: str) -> tuple[T, Origin | None]:
        if _canonical(name) in self._spellings:
            registered = self._spellings[_canonical(name)]
            return self._entries[registered], self._origins.get(registered)
        if split_reference(name) is not None:
            return self._of_file(name)
        for resolve, origin in self._resolvers:
            resolved = resolve(name)
            if resolved is not None:
                return resolved, origin
        if name.endswith(".py"):
            raise UnknownNameError(
                f"'{one_line(name, 80)}' names a file, and no {self.kind} in it; write it as FILE.py:NAME"
            )
        near = difflib.get_close_matches(name[:100], self._entries, n=3, cutoff=0.6)
        hint = (
            "did you mean " + " or ".join(f"'{n}'" for n in near) + "?"
            if near
            else f"known {self.kind}s: {some_of(self._entries, name, more=_where(self.kind))}"
        )
        raise UnknownNameError(f"unknown {self.kind} '{one_line(name, 80)}'; {hint}")

    def _of_file(self, text: str) -> tuple[T, Origin]:
        name = bare_reference(text)
        if self._make is None:
            raise UnknownNameError(
                f"a {self.kind} is not named by a file ('{text[:80]}'); let the file register it, load it "
                "with --plugin, and give the registered name"
            )
        found, origin = find_object(text)
        known = self._made.get(name)
        if known is None or known[0] is not found:  # of a copy of the file, which reads what lies beside itself
            known = self._made[name] = (found, self._make(name, found), origin)
        return known[1:]

    def names(self) -> tuple[str, ...]:
        """Registered names, in order of registration."""
        return tuple(self._entries)

    def items(self) -> Iterator[tuple[str, T]]:
        """Pairs of name and entry, in order of registration."""
        return iter(tuple(self._entries.items()))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _canonical(name) in self._spellings

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._entries))

    def __len__(self) -> int:
        return len(self._entries)
