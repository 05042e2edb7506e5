"""Runs of several seeds that are one training: what two of them share up to rounding, and only one has."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from shrinkbench.results.consistency import SHARES
from shrinkbench.results.record import Quality, RunResult

DIGITS = 7
"""Significant digits from which on a number is told apart from any other by itself."""
_COUNTED = frozenset(metric.name for metric in SHARES)
_OF_CHANCE = 1e-5
NEAR, FEWEST = 1e-6, 2
"""Sequences of at least so many epochs whose every number agrees up to this share are one training."""
_STARTS = 1e-7
LOSSES = "training losses"
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
        found[LOSSES].append(epoch.train_loss)
        for name, value in epoch.validation.items():
            if name not in _COUNTED:
                found[f"{name} on validation by epoch"].append(value)
    return {name: tuple(values) for name, values in found.items() if _is_telling(values)}


def _is_telling(values: Sequence[float]) -> bool:
    return (len(values) == 1 or len(set(values)) > 1) and any(map(telling, values))


def shared_records(first: RunResult, other: RunResult) -> tuple[str, ...]:
    """Names of records that two runs share to the last digit, at half of the epochs or more."""
    return _shared(records_of(first), records_of(other))


def _shared(mine: Records, theirs: Records) -> tuple[str, ...]:
    found = []
    for name in mine.keys() & theirs.keys():
        same = sum(a == b and telling(a) for a, b in zip(mine[name], theirs[name], strict=False))
        if same and 2 * same >= min(len(mine[name]), len(theirs[name])):
            found.append(name)
    return tuple(sorted(found))


def near(value: float, other: float) -> bool:
    """Whether two numbers are one but for rounding, or for a digit that somebody changed."""
    return math.isclose(value, other, rel_tol=NEAR)


class Trainings:
    """What runs wrote down while they were trained, looked at once for each, and which are one training."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[RunResult, Records]] = {}

    def records(self, run: RunResult) -> Records:
        """:func:`records_of` the run."""
        if id(run) not in self._known:
            self._known[id(run)] = run, records_of(run)
        return self._known[id(run)][1]

    def share(self, first: RunResult, other: RunResult) -> bool:
        """Whether two runs share a record to the last digit, or all of their training up to rounding.

        Without training they do where networks of their own read alike, as no two of them do.
        """
        shared = _shared(self.records(first), self.records(other))
        return bool(shared) or self.are_one(first, other) or _are_untrained_copies(first, other)

    def are_one(self, first: RunResult, other: RunResult) -> bool:
        """Whether two runs have one sequence of losses and of metrics on validation, up to rounding."""
        mine, theirs = (self.records(run).get(LOSSES) for run in (first, other))
        if mine is None or theirs is None or len(mine) != len(theirs):
            return False
        return mine == theirs or (len(mine) >= FEWEST and _are_near(first, other))

    def pairs(self, runs: Sequence[RunResult]) -> Iterator[tuple[RunResult, RunResult]]:
        """Pairs of ``runs`` that are one training, each once; of thousands few are looked at beside."""
        seen: set[tuple[int, int]] = set()
        for place in (0.0, 0.5, 1.0):
            losses = sorted(
                (
                    (values[round(place * (len(values) - 1))], number)
                    for number, run in enumerate(runs)
                    if (values := self.records(run).get(LOSSES))
                )
            )
            for at, (loss, number) in enumerate(losses):
                for other_loss, other in itertools.islice(losses, at + 1, None):
                    if not near(loss, other_loss):
                        break
                    pair = (min(number, other), max(number, other))
                    if pair not in seen and self.are_one(runs[number], runs[other]):
                        seen.add(pair)
                        yield runs[pair[0]], runs[pair[1]]


def _are_untrained_copies(first: RunResult, other: RunResult) -> bool:
    """Whether two runs without any epoch, that each start from their seed's own network, read alike."""
    own = not any(run.epochs or run.spec.weights.are_shared for run in (first, other))
    return own and first.after is not None and tells_its_network(first.after) and first.after == other.after


def _are_near(first: RunResult, other: RunResult) -> bool:
    return all(
        near(mine.train_loss, theirs.train_loss)
        and mine.validation.keys() == theirs.validation.keys()
        and all(near(value, theirs.validation[name]) for name, value in mine.validation.items())
        for mine, theirs in zip(first.epochs, other.epochs, strict=True)
    )


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
    """Groups of runs of one cell and of different seeds that are one training, in order of seed."""
    groups: list[list[RunResult]] = []
    trainings = Trainings()
    for run in sorted(runs, key=lambda r: r.spec.seed):
        group = next((g for g in groups if trainings.share(g[0], run)), None)
        if group is None:
            groups.append([run])
        elif all(run.spec.seed != other.spec.seed for other in group):
            group.append(run)
    yield from (tuple(group) for group in groups if len(group) > 1)


def find_shared_starts(results: Iterable[RunResult]) -> Iterator[tuple[RunResult, ...]]:
    """Controls of different seeds that start from one network, though their seeds should settle it.

    They read alike before training, up to rounding. Weights of a file, or trained once for all,
    are the same for all seeds.
    """
    controls: dict[object, dict[int, RunResult]] = defaultdict(dict)
    for run in results:
        if run.status == "done" and run.spec.is_control and not run.spec.weights.are_shared:
            spec = run.spec.control.model_copy(update={"seed": 0, "migrated_from": None})
            controls[spec].setdefault(run.spec.seed, run)  # methods may each have stored the one they share
    for by_seed in controls.values():
        alike: list[list[RunResult]] = []
        for run in by_seed.values():
            if run.before is not None and tells_its_network(run.before):
                group = next((g for g in alike if _read_alike(g[0].before, run.before)), None)
                if group is None:
                    alike.append([run])
                else:
                    group.append(run)
        yield from (tuple(runs) for runs in alike if len(runs) > 1)


def find_other_seeds(results: Iterable[RunResult]) -> Iterator[tuple[RunResult, int]]:
    """Runs whose weights before pruning are those of most runs of another seed, and of few of their own.

    Counts of weights by bin tell whose network it was.
    """
    starts: dict[object, dict[int, Counter[object]]] = defaultdict(lambda: defaultdict(Counter))
    known = []
    for run in results:
        if run.status == "done" and run.weight_histogram is not None:
            start = run.weight_histogram.edges, run.weight_histogram.before
            starts[run.spec.task][run.spec.seed][start] += 1
            known.append((run, start))
    for run, start in known:
        by_seed = starts[run.spec.task]
        of_most = [seed for seed, found in by_seed.items() if 2 * found[start] > found.total()]
        ((_, most),) = by_seed[run.spec.seed].most_common(1)
        if len(of_most) == 1 and of_most[0] != run.spec.seed and 2 * most > by_seed[run.spec.seed].total():
            yield run, of_most[0]


def _read_alike(first: Quality | None, other: Quality | None) -> bool:
    """Whether two networks are one by what they read: equal counts of images, the rest up to rounding."""
    if first is None or other is None or first.metrics.keys() != other.metrics.keys():
        return False
    return all(
        value == other[name] or (name not in _COUNTED and math.isclose(value, other[name], rel_tol=_STARTS))
        for name, value in first.metrics.items()
    )


def tells_its_network(quality: Quality) -> bool:
    """Whether what a network reads before training has numbers that no other network has by chance."""
    return any(name not in _COUNTED and telling(value) for name, value in quality.metrics.items())
