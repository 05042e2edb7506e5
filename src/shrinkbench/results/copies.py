"""Runs of several seeds that are one training: what two of them share to the last digit, and only one has."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from shrinkbench.results.consistency import SHARES
from shrinkbench.results.record import Quality, RunResult

DIGITS = 7
"""Significant digits from which on a number is told apart from any other by itself."""
_COUNTED = frozenset(metric.name for metric in SHARES)
_OF_CHANCE = 1e-5
_QUALITIES = {"before": "quality before training", "after": "quality after it", "validation": "validation"}
Records = Mapping[str, tuple[float, ...]]


def telling(value: float) -> bool:
    """Whether ``value`` has so many digits that two trainings do not share it by chance.

    The cross-entropy of a constant answer, ln k of k classes, says that a network is dead, not whose it is.

    >>> telling(0.0162083631), telling(0.5), telling(math.log(10))
    (True, False, False)
    """
    if len(f"{value:.15g}".lstrip("-0.").replace(".", "").partition("e")[0]) < DIGITS:
        return False
    classes = math.exp(min(value, 50.0))
    return value < 0 or abs(classes - round(classes)) > _OF_CHANCE * classes


def records_of(result: RunResult) -> Records:
    """What training wrote down epoch by epoch in long numbers: losses, and metrics that are no whole images.

    A record without any change tells nothing; of one epoch a single number does.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for epoch in result.epochs:
        found["training losses"].append(epoch.train_loss)
        for name, value in epoch.validation.items():
            if name not in _COUNTED:
                found[f"{name} on validation by epoch"].append(value)
    return {name: tuple(values) for name, values in found.items() if _is_telling(values)}


def _is_telling(values: Sequence[float]) -> bool:
    return (len(values) == 1 or len(set(values)) > 1) and any(map(telling, values))


def shared_records(first: RunResult, other: RunResult) -> tuple[str, ...]:
    """Names of records that two runs share to the last digit, at half of the epochs or more."""
    mine, theirs = records_of(first), records_of(other)
    found = []
    for name in mine.keys() & theirs.keys():
        same = sum(a == b and telling(a) for a, b in zip(mine[name], theirs[name], strict=False))
        if same and 2 * same >= min(len(mine[name]), len(theirs[name])):
            found.append(name)
    return tuple(sorted(found))


def agreement(runs: Sequence[RunResult]) -> tuple[str, ...]:
    """Everything that all of ``runs`` share, in words: records of training, then qualities."""
    first, *others = runs
    records = set(shared_records(first, others[0])).intersection(
        *(shared_records(first, o) for o in others[1:])
    )
    qualities = [
        words
        for name, words in _QUALITIES.items()
        if getattr(first, name) is not None and all(getattr(first, name) == getattr(o, name) for o in others)
    ]
    return (*sorted(records, reverse=True), *qualities)


def find_copies(runs: Iterable[RunResult]) -> Iterator[tuple[RunResult, ...]]:
    """Groups of runs of one cell and of different seeds that share a record of training, in order of seed."""
    groups: list[list[RunResult]] = []
    for run in sorted(runs, key=lambda r: r.spec.seed):
        group = next((g for g in groups if shared_records(g[0], run)), None)
        if group is None:
            groups.append([run])
        elif all(run.spec.seed != other.spec.seed for other in group):
            group.append(run)
    yield from (tuple(group) for group in groups if len(group) > 1)


def find_shared_starts(results: Iterable[RunResult]) -> Iterator[tuple[RunResult, ...]]:
    """Controls of different seeds that start from one network, though their seeds should settle it.

    They read alike before training to the last digit. Weights of a file, or trained once for all,
    are the same for all seeds.
    """
    controls: dict[object, dict[int, RunResult]] = defaultdict(dict)
    for run in results:
        if run.status == "done" and run.spec.is_control and not run.spec.weights.are_shared:
            spec = run.spec.control.model_copy(update={"seed": 0, "migrated_from": None})
            controls[spec].setdefault(run.spec.seed, run)  # methods may each have stored the one they share
    for by_seed in controls.values():
        alike: dict[object, list[RunResult]] = defaultdict(list)
        for run in by_seed.values():
            if run.before is not None and tells_its_network(run.before):
                alike[tuple(sorted(run.before.metrics.items()))].append(run)
        yield from (tuple(runs) for runs in alike.values() if len(runs) > 1)


def tells_its_network(quality: Quality) -> bool:
    """Whether what a network reads before training has numbers that no other network has by chance."""
    return any(name not in _COUNTED and telling(value) for name, value in quality.metrics.items())
