"""Pitfalls of comparison: methods of one dataset and network that did not run under one condition."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shrinkbench.report.checklist.causes import joined
from shrinkbench.report.conditions import (
    Facts,
    axis_versions,
    fields_of,
    machine_facts,
    measured_on,
    objective_facts,
    part_of_recipe,
    pruned_parts,
    recipe_facts,
    timing,
    trained_network,
    validated_on,
    weights_facts,
)
from shrinkbench.report.pitfalls.finding import Pitfall
from shrinkbench.results.apart import digest_once
from shrinkbench.results.networks import find_other_networks
from shrinkbench.results.record import RunResult
from shrinkbench.spec import Amount, MethodSpec

_Sets = Mapping[str, frozenset[Facts]]


@dataclass(frozen=True)
class Aspect:
    """One side of a run's condition.

    ``facts_of`` gives its facts, nothing where the aspect does not apply to a run. ``by_seed``: methods are
    compared seed by seed too, and seeds with one another; machines may be mixed over seeds. ``recorded``: facts
    are what somebody wrote down, or did not, and what nobody knows differs from nothing.
    """

    kind: str
    title: str
    advice: str
    facts_of: Callable[[RunResult], Facts]
    by_seed: bool = True
    recorded: bool = False


_AGAIN = "Run the methods that differ again under the condition of the others."
RECIPE = Aspect(
    "unequal-training",
    "Methods were trained by different recipes",
    "Compare at equal training, or train every method by each recipe.",
    lambda run: recipe_facts(run.spec.recipe),
)
_UNEQUAL = functools.partial(Aspect, "unequal-conditions")
ASPECTS = (
    _UNEQUAL("Methods ran on different data", _AGAIN, lambda run: fields_of(run.spec.data)),
    _UNEQUAL("Methods ran on different networks", _AGAIN, lambda run: fields_of(run.spec.model)),
    _UNEQUAL(
        "Methods were judged by different objectives",
        _AGAIN,
        lambda run: objective_facts(run.spec.task.objective),
    ),
    _UNEQUAL("Runs started from different initial weights", _AGAIN, lambda run: weights_facts(run.spec)),
    _UNEQUAL(
        "Masks were searched for by different recipes",
        _AGAIN,
        lambda run: recipe_facts(run.spec.search, prefix="search ") if run.spec.search else (),
    ),
    _UNEQUAL("Methods pruned different parts of the network", _AGAIN, lambda run: pruned_parts(run.spec)),
    _UNEQUAL("Methods were measured on different examples", _AGAIN, measured_on),
    _UNEQUAL("Methods were validated on different examples", _AGAIN, validated_on),
    _UNEQUAL("Methods were timed in different ways", _AGAIN, timing, by_seed=False),
    _UNEQUAL("Methods were trained masked and as smaller networks", _AGAIN, trained_network, by_seed=False),
    _UNEQUAL(
        "Methods ran on different machines or versions", _AGAIN, machine_facts, by_seed=False, recorded=True
    ),
    _UNEQUAL(
        "Methods ran with different seeds",
        _AGAIN,
        lambda run: (("seeds", str(run.spec.seed)),),
        by_seed=False,
    ),
)


def other_networks(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Runs of one specification whose networks were not one before they were pruned."""
    for other in find_other_networks(results):
        methods = sorted({run.spec.method.name for run in other.runs})
        yield Pitfall(
            kind="unequal-conditions",
            title="One network has several sizes",
            where=f"{other.runs[0].spec.data.name} / {other.runs[0].spec.model.name}",
            finding=f"{joined(methods)}: {other.sentence}.",
            advice="Find out which network was pruned: a ratio is of the network that it begins with.",
            runs=tuple(run.key for run in other.runs),
        )


def unequal_conditions(results: Sequence[RunResult], aspects: Sequence[Aspect] = ASPECTS) -> Iterator[Pitfall]:
    """Methods, or seeds, of one dataset and network that have other values of an aspect than most.

    Methods are compared over all of their runs, then seed by seed, then at every amount of every seed.
    Who has values that most lack, and lacks some that most have, is named with both; whoever has more values
    or fewer than the others shares some with them, and can be compared on those.
    """
    places: dict[str, list[RunResult]] = defaultdict(list)
    for run in results:
        if not run.spec.is_control:
            places[f"{run.spec.data.name} / {run.spec.model.name}"].append(run)
    for place, runs in sorted(places.items()):
        names = _names(runs)
        for aspect in aspects:
            yield from _differences(aspect, place, runs, names)


def unequal_versions(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Methods of one dataset and network that share the name of an axis value, and not what it does."""
    users: dict[tuple[str, tuple[str, str]], list[tuple[str, int, Facts, str]]] = defaultdict(list)
    for run in results:
        if not run.spec.is_control:
            place = f"{run.spec.data.name} / {run.spec.model.name}"
            for part, facts in axis_versions(run.spec.method).items():
                users[place, part].append((run.spec.method.name, run.spec.seed, facts, run.key))
    for (place, _), rows in sorted(users.items()):
        for sentence, odd in _compare(rows, lambda row: row[0], "method"):
            yield Pitfall(
                kind="unequal-conditions",
                title="Parts of methods share a name and not what they do",
                where=place,
                finding=sentence,
                advice="Run the methods that differ again with the code of the others.",
                runs=tuple(key for method, _, _, key in rows if method in odd),
            )


def _names(runs: Sequence[RunResult]) -> Mapping[MethodSpec, str]:
    """What every method is called, with a digest where two of one name differ."""
    methods = list(dict.fromkeys(run.spec.method for run in runs))
    counts = Counter(method.name for method in methods)
    return {m: m.name if counts[m.name] == 1 else f"{m.name} {digest_once(m)[:6]}" for m in methods}


def _differences(
    aspect: Aspect, place: str, runs: Sequence[RunResult], names: Mapping[MethodSpec, str]
) -> Iterator[Pitfall]:
    """Methods that differ over all seeds; then, where seeds count, those that do with some, and the seeds."""
    of_part: dict[Hashable, list[tuple[str, int, Facts, str]]] = defaultdict(list)
    for run in runs:
        facts = aspect.facts_of(run)
        if facts:
            part = part_of_recipe(run.spec.method) if aspect is RECIPE else None
            of_part[part].append((names[run.spec.method], run.spec.seed, facts, run.key))
    for rows in of_part.values():
        if len({facts for _, _, facts, _ in rows}) == 1:
            continue
        if aspect.recorded:
            rows = _with_usual(rows)
        named: set[str] = set()
        for sentence, odd in _compare(rows, lambda row: row[0], "method"):
            named |= set(odd)
            yield _pitfall(aspect, place, sentence, [key for m, _, _, key in rows if m in odd])
        if not aspect.by_seed:
            continue
        rows = [row for row in rows if row[0] not in named]
        by_seed = [*_seed_by_seed(aspect, place, rows)]
        yield from by_seed
        told = {key for pitfall in by_seed for key in pitfall.runs}
        amounts = {run.key: run.spec.amount for run in runs}
        yield from _at_amounts(aspect, place, [row for row in rows if row[3] not in told], amounts)


def _with_usual(rows: Sequence[tuple[str, int, Facts, str]]) -> list[tuple[str, int, Facts, str]]:
    """The rows with the most frequent value of every field that a run does not record."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, _, facts, _ in rows:
        for field, text in facts:
            counts[field][text] += bool(text)
    usual = {field: found.most_common(1)[0][0] for field, found in counts.items()}
    return [
        (method, seed, tuple((usual | {field: text for field, text in facts if text}).items()), key)
        for method, seed, facts, key in rows
    ]


def _seed_by_seed(aspect: Aspect, place: str, rows: Sequence[tuple[str, int, Facts, str]]) -> Iterator[Pitfall]:
    found: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for seed in sorted({row[1] for row in rows}):
        for case in _compare([row for row in rows if row[1] == seed], lambda row: row[0], "method"):
            found[case].append(seed)
    for (sentence, odd), seeds in found.items():
        where = f"With seed{'s' if len(seeds) > 1 else ''} {joined(seeds)}, {sentence}"
        yield _pitfall(aspect, place, where, [k for m, s, _, k in rows if m in odd and s in seeds])
    for sentence, odd in _compare(rows, lambda row: f"seed {row[1]}", "seed"):
        text = f"By seed, conditions differ: {sentence}"
        yield _pitfall(aspect, place, text, [k for _, s, _, k in rows if f"seed {s}" in odd])


def _at_amounts(
    aspect: Aspect, place: str, rows: Sequence[tuple[str, int, Facts, str]], amounts: Mapping[str, Amount]
) -> Iterator[Pitfall]:
    """Methods that differ at some amounts alone: over all amounts they have more values, not other ones."""
    cells: dict[tuple[int, Amount], list[tuple[str, int, Facts, str]]] = defaultdict(list)
    for row in rows:
        cells[row[1], amounts[row[3]]].append(row)
    found: dict[tuple[str, tuple[str, ...]], list[tuple[int, Amount]]] = defaultdict(list)
    for cell, members in cells.items():
        for case in _compare(members, lambda row: row[0], "method"):
            found[case].append(cell)
    for (sentence, odd), where in found.items():
        seeds = sorted({seed for seed, _ in where})
        named = sorted({amount.label for _, amount in where}, key=lambda label: (len(label), label))
        text = f"At {joined(named)} with seed{'s' if len(seeds) > 1 else ''} {joined(seeds)}, {sentence}"
        yield _pitfall(aspect, place, text, [row[3] for cell in where for row in cells[cell] if row[0] in odd])


def _pitfall(aspect: Aspect, place: str, sentence: str, runs: Sequence[str]) -> Pitfall:
    return Pitfall(aspect.kind, aspect.title, place, sentence, aspect.advice, runs=tuple(runs))


def _compare(
    rows: Sequence[tuple[str, int, Facts, str]],
    unit_of: Callable[[tuple[str, int, Facts, str]], str],
    noun: str,
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A sentence for each group of units (methods or seeds) with other facts than most, and who they are."""
    collected: dict[str, set[Facts]] = defaultdict(set)
    for row in rows:
        collected[unit_of(row)].add(row[2])
    sets: _Sets = {unit: frozenset(facts) for unit, facts in collected.items()}
    counts = Counter(sets.values())
    if len(counts) < 2:
        return
    usual = max(sorted(counts, key=sorted), key=lambda facts: counts[facts])
    others = f"{counts[usual]} of {len(sets)} {noun}s"
    odd: dict[frozenset[Facts], list[str]] = defaultdict(list)
    for unit, own in sets.items():
        if own - usual and usual - own:
            odd[own].append(unit)
    for own, units in odd.items():
        differing = list(_differing_fields(own, usual))
        mine, theirs = (joined(f"{field} {values[side]}" for field, *values in differing) for side in (0, 1))
        verb = "has" if len(units) == 1 else "have"
        most = "has" if counts[usual] == 1 else "have"
        yield f"{joined(units)} {verb} {mine}; {others} {most} {theirs}.", tuple(units)


def _differing_fields(own: frozenset[Facts], usual: frozenset[Facts]) -> Iterator[tuple[str, str, str]]:
    """Fields whose values differ, with the values on either side."""
    mine, theirs = _by_field(own), _by_field(usual)
    for field in dict.fromkeys([*mine, *theirs]):
        a, b = mine.get(field, []), theirs.get(field, [])
        if a != b:
            yield field, ", ".join(a) or "none", ", ".join(b) or "none"


def _by_field(sets: frozenset[Facts]) -> dict[str, list[str]]:
    values: dict[str, set[str]] = defaultdict(set)
    for facts in sets:
        for field, text in facts:
            values[field].add(text)
    return {field: sorted(texts, key=lambda t: (len(t), t)) for field, texts in values.items()}
