"""Under which conditions runs were made, where these differ, and for which runs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from shrinkbench.report.checklist.causes import Point, joined, say
from shrinkbench.report.checklist.evidence import Evidence
from shrinkbench.report.conditions import (
    Facts,
    loading,
    machine_facts,
    measured_on,
    objective_facts,
    pruned_parts,
    validated_on,
)
from shrinkbench.results.labels import how_trained, recipe_labels, weights_label
from shrinkbench.results.record import RunResult
from shrinkbench.spec import TaskSpec

CORE = (
    *("shrinkbench", "torch", "torchvision", "numpy", "Python", "commit"),
    *("device", "processor", "threads", "processes"),
)
"""What is named even where nobody recorded it."""


@dataclass(frozen=True)
class Difference:
    """One condition that runs do not share: a sentence, and the runs that are in the minority."""

    sentence: str
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """What the runs of a task share, what only some of them record, and in what they differ."""

    shared: tuple[str, ...]
    unrecorded: tuple[str, ...]
    differing: tuple[Difference, ...]


def _recorded(run: RunResult) -> dict[str, str]:
    """What a run's provenance tells of its setting, by name; what it does not tell is absent."""
    commit, edited, _ = (run.provenance.commit or "").partition("+")  # marks a tree that was edited
    stated = (*machine_facts(run), ("commit", f"{commit[:12]}{edited}"))
    return {name: value for name, value in stated if value}


def find_conditions(evidence: Evidence) -> Conditions:
    """Compare, within every task, what the provenance of its runs records."""
    by_task: dict[str, list[RunResult]] = defaultdict(list)
    for run in evidence.results:
        by_task[evidence.point_of(run)[0] or ""].append(run)
    recorded = {run.key: _recorded(run) for run in evidence.results}
    names = [*dict.fromkeys([*CORE, *(name for found in recorded.values() for name in found)])]
    shared, unrecorded, differing = [], [], []
    for name in names:
        mixed = [
            runs
            for runs in by_task.values()
            if len({recorded[run.key][name] for run in runs if name in recorded[run.key]}) > 1
        ]
        if mixed:
            values = {run.key: recorded[run.key].get(name, "") for runs in mixed for run in runs}
            differing.append(_difference(name, {k: v for k, v in values.items() if v}, evidence))
        elif all(name in found for found in recorded.values()):
            shared.append(name)
        else:
            unrecorded.append(name)
    return Conditions(tuple(shared), tuple(unrecorded), tuple(differing))


def _difference(name: str, values: Mapping[str, str], evidence: Evidence) -> Difference:
    """The values of one condition, most frequent first, and where the others are."""
    counts = Counter(values.values())
    usual, most = counts.most_common(1)[0]
    grid = [evidence.point_of(evidence.by_key[key]) for key in values]
    others = []
    for value, count in counts.most_common()[1:]:
        where = say(
            [evidence.point_of(evidence.by_key[k]) for k, v in values.items() if v == value], grid, limit=3
        )
        others.append(f"{value} in {count} run{'s' * (count > 1)} ({where})")
    sentence = f"{name}: {'; '.join(others)}; {usual} in {most} run{'s' * (most > 1)}."
    return Difference(sentence, tuple(key for key, value in values.items() if value != usual))


def find_unlike_treatment(evidence: Evidence) -> list[Difference]:
    """Settings of loading and pruning that differ between methods of a task that are trained alike.

    A setting that every method was run with, beside another, is a part of the experiment.
    """
    found = []
    groups: dict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for (task, _, _), runs in evidence.cells.items():
        for run in runs:
            groups[task, how_trained(run.spec)].append(run)
    for (task, trained), members in groups.items():
        settings: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        for run in members:
            for name, setting in (*loading(run.spec), *pruned_parts(run.spec)):
                settings[name][run.spec.method.name].add(setting)
        for name, by_method in settings.items():
            if len(set(map(frozenset, by_method.values()))) > 1:
                users: dict[str, list[str]] = defaultdict(list)
                for method, used in by_method.items():
                    users[" and ".join(sorted(used))].append(method)
                told = ", ".join(f"{setting} for {joined(who)}" for setting, who in users.items())
                fewest = min(users.values(), key=len)
                keys = tuple(r.key for r in members if r.spec.method.name in fewest)
                found.append(Difference(f"{name} of networks {_adverb(trained)} on {task}: {told}.", keys))
    return found


def find_unlike_measurement(evidence: Evidence) -> list[Difference]:
    """Other numbers of measured or validated examples than most runs of a task have, controls included.

    A task says which data are read, so that one number of examples follows for all of its runs.
    """
    found = []
    for what, facts_of in (("measured", measured_on), ("validation", validated_on)):
        by_task: dict[str, dict[str, str]] = defaultdict(dict)
        for run in evidence.results:
            for _, number in facts_of(run):
                by_task[evidence.point_of(run)[0] or ""][run.key] = number
        mixed = [values for values in by_task.values() if len(set(values.values())) > 1]
        found += [_difference(f"{what} examples", values, evidence) for values in mixed]
    return found


def _adverb(trained: str) -> str:
    return f"trained {trained}" if trained == "from scratch" else f"that are {trained}"


@dataclass(frozen=True)
class Apart:
    """Runs that are compared with nothing because their task is another one of the same names.

    ``of_data`` where it is the data that differ, ``tasks`` are the labels of both, ``runs`` the keys apart.
    """

    sentence: str
    of_data: bool
    tasks: tuple[str, str]
    runs: tuple[str, ...]


def find_apart(evidence: Evidence) -> list[Apart]:
    """Pairs of tasks of one dataset and network that each have points which the other lacks."""
    points: dict[str, dict[Point, None]] = defaultdict(dict)
    for point in evidence.grid:
        points[point[0] or ""][None, point[1], point[2], point[3]] = None
    found = []
    for pair in combinations(evidence.tasks, 2):
        first, second = sorted(pair, key=lambda task: -len(points[task]))
        one, other = evidence.tasks[first], evidence.tasks[second]
        named_alike = (one.data.name, one.model.name) == (other.data.name, other.model.name)
        if not named_alike or points[second].keys() <= points[first].keys():
            continue
        differing = list(_differing(one, other))
        if differing:
            alone = [point for point in points[second] if point not in points[first]]
            where = say(alone, points[first] | points[second], limit=3)
            causes = "; ".join(text for text, _ in differing)
            sentence = f"Run with {causes}, so on another task than the others: {where}."
            cells = ((p[1], p[2]) for p in alone)
            keys = {r.key for m, a in cells for r in evidence.cells.get((second, m or "", a or ""), ())}
            of_data = any(is_data for _, is_data in differing)
            found.append(Apart(sentence, of_data, (first, second), tuple(sorted(keys))))
    return found


def explain_apart(evidence: Evidence, lacking: Iterable[Point]) -> list[str]:
    """Why points may lack what they are compared with: it was run on another task of the same names."""
    tasks = {point[0] for point in lacking}
    return [apart.sentence for apart in find_apart(evidence) if tasks & set(apart.tasks)]


def _differing(one: TaskSpec, other: TaskSpec) -> Iterator[tuple[str, bool]]:
    """In what two tasks differ, the second against the first, and whether that is the data."""
    for what, field in (("training", "train"), ("validation", "validation"), ("test", "test")):
        counts = [getattr(task.data, f"{field}_images") for task in (other, one)]
        if counts[0] != counts[1]:
            told = ["all" if count is None else f"{count}" for count in counts]
            yield f"another data split: {told[0]} against {told[1]} {what} images", True
    if one.data.revision != other.data.revision:
        yield f"other data: digest {other.data.revision[:12]} against {one.data.revision[:12]}", True
    if one.data.normalisation != other.data.normalisation:
        yield f"another normalisation: {other.data.normalisation} against {one.data.normalisation}", True
    if (one.data.source, one.data.sides) != (other.data.source, other.data.sides):
        yield "data loaded by other code or at another size", True
    if one.model != other.model:
        yield "other code of the network", False
    if one.objective != other.objective:
        name, value, usual = _first_unlike(objective_facts(other.objective), objective_facts(one.objective))
        yield f"another {name}: {value} against {usual}", False
    if one.weights != other.weights:
        yield f"other initial weights: {' against '.join(_weights(one, other))}", False


def _first_unlike(facts: Facts, others: Facts) -> tuple[str, str, str]:
    """The first field whose value is another one, with both values."""
    mine, theirs = dict(facts), dict(others)
    name = next(name for name in (*mine, *theirs) if mine.get(name) != theirs.get(name))
    return name, mine.get(name, "none"), theirs.get(name, "none")


def _weights(one: TaskSpec, other: TaskSpec) -> Iterable[str]:
    """The initial weights of the second and the first task, as far as it takes to tell them apart."""
    recipes = recipe_labels(task.weights.recipe for task in (one, other) if task.weights.recipe)
    for task in (other, one):
        weights = task.weights
        named = weights_label(weights, recipes)
        yield f"{named} (digest {weights.digest[:12]})" if weights.digest else named
