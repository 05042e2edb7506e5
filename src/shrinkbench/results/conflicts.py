"""One run, two outcomes: a key stands for one run, so other numbers under it are a conflict to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shrinkbench.results.consistency import SHARES
from shrinkbench.results.record import Quality, RunResult
from shrinkbench.spec.value import digest_of_fields

Conflict = tuple[RunResult, RunResult]
"""Two finished results of one key with other numbers: the one that is used, and another."""

_COUNTED = frozenset(metric.name for metric in SHARES)


def numbers_of(result: RunResult) -> str:
    """SHA-256 of what a finished run measured: its size, its layers and its metrics.

    Shares of whole images count with all digits, what is summed in floating point (losses) with five: machines
    that add in another order have the same numbers.
    """
    return digest_of_fields(_measured(result))


def _measured(result: RunResult) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "size": result.size.model_dump(mode="json") if result.size else None,
        "layers": {name: [layer.kept, layer.total] for name, layer in result.layers.items()},
        "selected_epoch": result.selected_epoch,
        "further": {name: _of_quality(quality) for name, quality in result.further.items()},
    }
    for name in ("before", "after", "validation"):
        fields[name] = _of_quality(getattr(result, name))
    return fields


def _of_quality(quality: Quality | None) -> Mapping[str, Any] | None:
    if quality is None:
        return None
    metrics = {name: v if name in _COUNTED else f"{v:.5g}" for name, v in quality.metrics.items()}
    return {"examples": quality.examples, **metrics}


def differ(first: RunResult, other: RunResult) -> bool:
    """Whether two results of one key are in conflict: both finished, with other numbers."""
    if first is other or not first.status == other.status == "done":
        return False
    return numbers_of(first) != numbers_of(other)


def accuracy_difference(pair: Conflict) -> float:
    """By how much the headline metric of the second is above that of the first."""
    first, other = (result.headline or 0.0 for result in pair)
    return other - first


def conflicts_among(sources: Iterable[Iterable[RunResult]]) -> tuple[Conflict, ...]:
    """For every key the result that comes first, with each other that has numbers not seen before.

    A finished result comes before a failed one, whatever the order.
    """
    first: dict[str, RunResult] = {}
    seen: dict[str, dict[str, RunResult]] = {}
    for result in (result for source in sources for result in source):
        earlier = first.get(result.key)
        if earlier is None or (earlier.status == "failed" and result.status == "done"):
            first[result.key] = result
        elif differ(earlier, result):
            seen.setdefault(result.key, {}).setdefault(numbers_of(result), result)
    return tuple((first[key], other) for key, others in seen.items() for other in others.values())


def differences(pair: Conflict) -> list[tuple[str, str, str]]:
    """Every measured field in which the two differ, with its two values; the headline metric first."""
    first, other = (dict(_flattened("", _measured(result))) for result in pair)
    leading = f"after.{pair[0].spec.task.objective.headline}"
    names = sorted(dict.fromkeys([*first, *other]), key=lambda name: name != leading)
    return [
        (name, first.get(name, "nothing"), other.get(name, "nothing"))
        for name in names
        if first.get(name) != other.get(name)
    ]


def _flattened(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _flattened(f"{path}.{name}".lstrip("."), entry)
    elif value is not None:
        yield path, str(value)


def describe_conflict(pair: Conflict) -> tuple[str, str]:
    """The run of a conflict, and where its two results differ."""
    (name, used, other), *more = differences(pair)
    others = f" (and {len(more)} other field{'s' if len(more) > 1 else ''})" if more else ""
    return pair[0].key[:12], f"{name} {used} is used, another source has {other}{others}"


def say_conflict(conflicts: Iterable[Conflict]) -> str:
    """What a reader has to know of them, nothing where there are none.

    >>> say_conflict([])
    ''
    """
    pairs = list(conflicts)
    if not pairs:
        return ""
    keys = list(dict.fromkeys(first.key for first, _ in pairs))
    widest = max(pairs, key=lambda pair: abs(accuracy_difference(pair)))
    metric = widest[0].spec.task.objective.headline
    name, used, other = differences(widest)[0]
    apart = abs(accuracy_difference(widest))
    how = f"by up to {apart:.4g} of {metric}" if apart else f"not in {metric} but in {name}: {used} and {other}"
    runs = f"{len(keys)} run has" if len(keys) == 1 else f"{len(keys)} runs have"
    return (
        f"{runs} other numbers in another source under the same key, {how} "
        f"(run {widest[0].key[:12]}): a key is one run, so one of the two is not what it "
        "says; those that came first are used here"
    )
