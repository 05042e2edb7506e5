"""Short texts that tell values apart: their fields, words about them or, in the end, a digest."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from shrinkbench.spec import Value, digest

ItemT = TypeVar("ItemT", bound=Value)

digest_once = functools.lru_cache(maxsize=4096)(digest)
"""The digest of a part of a specification; the same few stand in thousands of runs."""


def name_with_fields(named: Mapping[str, Sequence[ItemT]]) -> dict[ItemT, str]:
    """For each item its name, and in brackets the fields in which items of one name differ."""
    labels = {}
    for name, members in named.items():
        fields = [
            field
            for field in type(members[0]).model_fields
            if len({repr(getattr(item, field)) for item in members}) > 1
        ]
        for item in members:
            text = ", ".join(f"{field} {value_text(getattr(item, field))}" for field in fields)
            labels[item] = f"{name} ({text})" if text else name
    return labels


def value_text(value: object) -> str:
    """A number with as few digits as tell it, anything else as it prints."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def add_digests(labels: Mapping[ItemT, str], separator: str) -> dict[ItemT, str]:
    """The same labels, with a digest where two items came to have one, however they are spelt."""
    counts = Counter(labels.values())
    return {
        item: f"{label}{separator}{short_digest(item)}" if counts[label] > 1 else label
        for item, label in labels.items()
    }


def tell_apart(
    items: Sequence[ItemT],
    parts: Sequence[Callable[[ItemT], str]],
    *,
    spare: Callable[[ItemT], str] | None = None,
) -> dict[ItemT, list[str]]:
    """For each item as many of ``parts``, in their order, as tell items apart.

    Where these do not suffice ``spare`` is added and, where that does not either, a digest.
    """
    labels: dict[ItemT, list[str]] = {item: [] for item in items}
    for part in parts:
        longer = {item: [*label, part(item)] for item, label in labels.items()}
        if len(set(map(tuple, longer.values()))) > len(set(map(tuple, labels.values()))):
            labels = longer
    for more in (spare, short_digest):
        counts = Counter(map(tuple, labels.values()))
        if more is not None:
            labels = {
                item: [*label, more(item)] if counts[tuple(label)] > 1 else label
                for item, label in labels.items()
            }
    return labels


def short_digest(item: Value) -> str:
    """The beginning of an item's digest."""
    return digest_once(item)[:6]
