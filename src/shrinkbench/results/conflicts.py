"""One run, two outcomes: a key stands for one run, so other numbers under it are a conflict to be shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from shrinkbench.errors import one_line
from shrinkbench.results.consistency import SHARES
from shrinkbench.results.failures import is_scientific
from shrinkbench.results.record import Quality, RunResult
from shrinkbench.spec.value import digest_of_fields

Conflict = tuple[RunResult, RunResult]
"""Two results of one key that contradict each other: the one that is used, which is finished, and another.

The other has other numbers, or it failed where the first came to an end. Its key is another where one of the
two was measured on further splits. Or two copies of one control, which methods stored under keys of their own;
of these neither is used.
"""

_COUNTED = frozenset(metric.name for metric in SHARES)
_TOLD = 60  # characters of an error
_OF_FLOATS, _OF_BINS, _BINS = 1e-5, 1e-3, 3.0
_OF_LOSSES = 1e-2
_EVERYTHING = {
    *("status", "size", "before", "after", "validation", "further", "selected_epoch", "epochs_run", "epochs"),
    *("layers", "weight_histogram", "cost", "reachable"),
}


def numbers_of(result: RunResult) -> str:
    """SHA-256 of what a finished run measured: its size, its layers and its metrics; of a failed one, nothing.

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
    """Whether two results of one key are in conflict: other numbers, or one finished and the other failed.

    A failure counts that lies in the run: one of the machine says nothing about it.
    """
    if first is other or first.status == other.status == "failed":
        return False
    if first.status != other.status:
        return is_scientific(first) or is_scientific(other)
    return numbers_of(first) != numbers_of(other) or bool(_other_losses(first, other))


def _other_losses(first: RunResult, other: RunResult) -> list[tuple[str, str, str]]:
    """The first epoch whose training loss differs beyond all rounding, with both values, if there is one."""
    for mine, theirs in zip(first.epochs, other.epochs, strict=False):
        if not math.isclose(mine.train_loss, theirs.train_loss, rel_tol=_OF_LOSSES, abs_tol=_OF_LOSSES**2):
            return [(f"epochs.{mine.epoch}.train_loss", f"{mine.train_loss:.5g}", f"{theirs.train_loss:.5g}")]
    return []


def unlike(first: RunResult, other: RunResult) -> tuple[str, ...]:
    """Every measured field in which two results differ, by its place: more than makes a conflict.

    Epochs, their losses, the histogram and the cost count too; provenance does not. Shares of images are
    compared exactly, what is summed in floating point to five digits, bins of weights to a thousandth.
    """
    mine, theirs = (
        dict(_flattened("", result.model_dump(mode="json", include=_EVERYTHING))) for result in (first, other)
    )
    found = [name for name, _, _ in differences((first, other))]
    found += [
        name for name in dict.fromkeys([*mine, *theirs]) if not _alike(name, mine.get(name), theirs.get(name))
    ]
    return tuple(dict.fromkeys(found))


def _alike(name: str, first: object, other: object) -> bool:
    if first == other:
        return True
    if not (isinstance(first, (int, float)) and isinstance(other, (int, float))):
        return False
    if name.startswith("weight_histogram"):
        return math.isclose(first, other, rel_tol=_OF_BINS, abs_tol=_BINS)
    counted = isinstance(first, int) or name.rpartition(".")[2] in _COUNTED
    return not counted and math.isclose(first, other, rel_tol=_OF_FLOATS)


def accuracy_difference(pair: Conflict) -> float:
    """By how much the headline metric of the second is above that of the first; 0 where one failed."""
    first, other = (result.headline for result in pair)
    return 0.0 if first is None or other is None else other - first


def conflicts_among(sources: Iterable[Iterable[RunResult]]) -> tuple[Conflict, ...]:
    """For every run the result that is used, with each other that contradicts it and was not seen before.

    The result that comes first is used, a finished one before a failed one and one that was measured on further
    splits before one that was not, whatever the order. What only one of the two measured is no contradiction.
    """
    by_run: dict[str, list[RunResult]] = {}
    for result in (result for source in sources for result in source):
        by_run.setdefault(_trained(result), []).append(result)
    found: list[Conflict] = []
    for results in (results for results in by_run.values() if len(results) > 1):
        used = min(results, key=lambda r: (r.status != "done", -len(r.spec.extra)))
        others: dict[tuple[str, str, str], RunResult] = {}
        for other in results:
            if differ(used, other) and differences((used, other)):
                others.setdefault((other.key, other.status, numbers_of(other)), other)
        found += [(used, other) for other in others.values()]
    return tuple(found)


def _trained(result: RunResult) -> str:
    """What two results of one training share: the key, whatever splits the network was measured on beside."""
    return result.spec.model_copy(update={"extra": ()}).key if result.spec.extra else result.key


def _are_controls(pair: Conflict) -> bool:
    """Whether the two are one control as two methods stored it, and not one run that was measured twice."""
    return pair[0].key != pair[1].key and _trained(pair[0]) != _trained(pair[1])


def find_differing_controls(
    results: Iterable[RunResult], *, keys: Mapping[str, str] = MappingProxyType({})
) -> tuple[Conflict, ...]:
    """For every control that methods stored with two sets of numbers, the first copy with each other one.

    A control is one run, whatever key each method's copy lies under. What one copy measured and the other did
    not is no contradiction; nor is a copy that failed, since that may lie in the method that stored it.
    ``keys`` are those of controls by that of a copy, where they are known.
    """
    copies: dict[str, dict[str, RunResult]] = {}
    for result in results:
        if result.status == "done" and result.spec.is_control:
            copies.setdefault(keys.get(result.key) or result.spec.control.key, {}).setdefault(
                result.key, result
            )
    found: list[Conflict] = []
    for first, *rest in (list(by_key.values()) for by_key in copies.values() if len(by_key) > 1):
        others: dict[str, RunResult] = {}
        for other in rest:
            if differ(first, other) and differences((first, other)):
                others.setdefault(numbers_of(other), other)
        found += [(first, other) for other in others.values()]
    return tuple(found)


def differences(pair: Conflict) -> list[tuple[str, str, str]]:
    """Every measured field in which the two differ, with its two values; the headline metric first.

    Where one of them failed it is the status alone; of two copies of a control, what both measured.
    """
    if pair[0].status != pair[1].status:
        return [("status", _status_of(pair[0]), _status_of(pair[1]))]
    first, other = ({name: str(value) for name, value in _flattened("", _measured(result))} for result in pair)
    leading = f"after.{pair[0].spec.task.objective.headline}"
    names = sorted(dict.fromkeys([*first, *other]), key=lambda name: name != leading)
    if pair[0].key != pair[1].key:
        names = [name for name in names if name in first and name in other]
    found = [
        (name, first.get(name, "nothing"), other.get(name, "nothing"))
        for name in names
        if first.get(name) != other.get(name)
    ]
    return found or _other_losses(*pair)


def _status_of(result: RunResult) -> str:
    return f"failed ({one_line(result.error or '', _TOLD)})" if result.status == "failed" else "done"


def _flattened(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every single value that is there, by its path; a list of densities or names is one."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _flattened(f"{path}.{name}".lstrip("."), entry)
    elif isinstance(value, list) and path.partition(".")[0] in ("epochs", "weight_histogram"):
        for number, entry in enumerate(value):
            yield from _flattened(f"{path}.{number}", entry)
    elif value is not None:
        yield path, value


def describe_conflict(pair: Conflict) -> tuple[str, str]:
    """The run of a conflict, and where its two results differ."""
    (name, used, other), *more = differences(pair)
    others = f" (and {len(more)} other field{'s' if len(more) > 1 else ''})" if more else ""
    if _are_controls(pair):
        whose, copys = (result.spec.method.name for result in pair)
        return pair[0].key[:12], (
            f"the control of seed {pair[0].spec.seed} has {name} {used} as {whose} stored it and {other} as "
            f"{copys} did (run {pair[1].key[:12]}){others}; neither is used"
        )
    if pair[0].key != pair[1].key:
        source = f"run {pair[1].key[:12]}, the same one measured on other splits beside,"
    else:
        source = "another source" + ", or a later attempt," * (pair[1].status == "failed")
    return pair[0].key[:12], f"{name} {used} is used, {source} has {other}{others}"


def _say_controls(pairs: Sequence[Conflict]) -> str:
    """That controls have two sets of numbers, with the largest difference."""
    widest = max(pairs, key=lambda pair: abs(accuracy_difference(pair)))
    apart, metric = abs(accuracy_difference(widest)), widest[0].spec.task.objective.headline
    name, first, other = differences(widest)[0]
    how = f"by up to {apart:.4g} of {metric}" if apart else f"in {name}: {first} and {other}"
    count = len({pair[0].spec.control.key for pair in pairs})
    controls = "1 control has" if count == 1 else f"{count} controls have"
    return (
        f"{controls} other numbers under the keys of two methods, {how} (runs "
        f"{widest[0].key[:12]} and {widest[1].key[:12]}): a control is one run, so one of the two is not what "
        "it says; neither is used, and no claim is made for runs that start from it"
    )


def say_conflict(conflicts: Iterable[Conflict]) -> str:
    """What a reader has to know of them, nothing where there are none.

    >>> say_conflict([])
    ''
    """
    pairs = list(conflicts)
    controls = [pair for pair in pairs if _are_controls(pair)]
    if controls:
        rest = say_conflict(pair for pair in pairs if not _are_controls(pair))
        return "; ".join(filter(None, [rest, _say_controls(controls)]))
    failed = {first.key: other for first, other in pairs if other.status == "failed"}
    numbers = [pair for pair in pairs if pair[1].status == "done"]
    further = any(first.key != other.key for first, other in numbers)
    told = []
    if numbers:
        keys = {first.key for first, _ in numbers}
        widest = max(numbers, key=lambda pair: abs(accuracy_difference(pair)))
        metric = widest[0].spec.task.objective.headline
        name, used, other = differences(widest)[0]
        apart = abs(accuracy_difference(widest))
        elsewhere = f"not in {metric} but in {name}: {used} and {other}"
        how = f"by up to {apart:.4g} of {metric}" if apart else elsewhere
        under = "in another source under the same key"
        if further:
            under = "under the same key, or that of the same run measured on other splits"
        told.append(f"{_runs_have(len(keys))} other numbers {under}, {how} (run {widest[0].key[:12]})")
    if failed:
        key, failure = next(iter(failed.items()))
        told.append(
            f"{_runs_have(len(failed))} failed in another source, or later, under the same key and finished "
            f"here (run {key[:12]}: {one_line(failure.error or '', _TOLD)})"
        )
    if not told:
        return ""
    used_here = "those that came first" if numbers and not failed else "finished ones that came first"
    used_here = f"those measured on most splits, then {used_here}" if further else used_here
    return (
        f"{'; '.join(told)}: a key is one run, so one of the two is not what it says; {used_here} are used here"
    )


def _runs_have(count: int) -> str:
    return f"{count} run has" if count == 1 else f"{count} runs have"
