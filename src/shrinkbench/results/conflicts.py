"""One run, two outcomes: a key stands for one run, so other numbers under it are a conflict to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    fields: dict[str, Any] = {
        "size": result.size.model_dump(mode="json") if result.size else None,
        "layers": {name: [layer.kept, layer.total] for name, layer in result.layers.items()},
        "selected_epoch": result.selected_epoch,
        "further": {name: _of_quality(quality) for name, quality in result.further.items()},
    }
    for name in ("before", "after", "validation"):
        fields[name] = _of_quality(getattr(result, name))
    return digest_of_fields(fields)


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


def difference(pair: Conflict) -> float:
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


def describe(pair: Conflict) -> tuple[str, str]:
    """The run of a conflict, and its two numbers."""
    first, other = pair
    metric = first.spec.task.objective.headline
    return first.key[:12], f"{metric} {first.headline:.6g} is used, another source has {other.headline:.6g}"


def sentence_of(conflicts: Iterable[Conflict]) -> str:
    """What a reader has to know of them, nothing where there are none.

    >>> sentence_of([])
    ''
    """
    pairs = list(conflicts)
    if not pairs:
        return ""
    keys = list(dict.fromkeys(first.key for first, _ in pairs))
    widest = max(pairs, key=lambda pair: abs(difference(pair)))
    metric = widest[0].spec.task.objective.headline
    runs = f"{len(keys)} run has" if len(keys) == 1 else f"{len(keys)} runs have"
    return (
        f"{runs} other numbers in another source under the same key, by up to {abs(difference(widest)):.4g} of "
        f"{metric} (run {widest[0].key[:12]}): a key is one run, so one of the two is not what it "
        "says; those that came first are used here"
    )
