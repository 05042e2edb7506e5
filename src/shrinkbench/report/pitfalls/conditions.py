"""Pitfalls of comparison: methods of one dataset and network that did not run under one condition."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from shrinkbench.report.checklist.causes import joined
from shrinkbench.report.pitfalls.finding import Pitfall
from shrinkbench.results.apart import digest_once, value_text
from shrinkbench.results.record import RunResult
from shrinkbench.spec import MethodSpec, Recipe, Value

Facts = tuple[tuple[str, str], ...]
"""What one run has of an aspect: fields in words and their values as text."""
_Sets = Mapping[str, frozenset[Facts]]

_NOT_TRAINING = frozenset({"name", "reference", "largest_stretch"})
"""Fields of a recipe in which two trainings may differ and yet be one."""
_DIGITS = 12


@dataclass(frozen=True)
class Aspect:
    """One side of a run's condition.

    ``facts_of`` gives its facts, nothing where the aspect does not apply to a run. ``by_seed``: methods are
    compared seed by seed too, and seeds with one another; machines may be mixed over seeds.
    """

    kind: str
    title: str
    advice: str
    facts_of: Callable[[RunResult], Facts]
    by_seed: bool = True


_WORDS = {"augment": "augmentation", "train images": "training images"}
_ABSENT = dict.fromkeys(("train_images", "validation_images", "test_images"), "all")
_TOLD: Mapping[object, str] = {True: "on", False: "off"}


@functools.lru_cache(maxsize=1024)
def _fields_of(value: Value, prefix: str = "", left_out: frozenset[str] = frozenset({"name"})) -> Facts:
    """Every field of a value in words, those ``left_out`` aside; a digest by its first digits."""
    found = []
    for field in type(value).model_fields:
        content, words = getattr(value, field), field.replace("_", " ")
        if field in left_out:
            continue
        text = _TOLD[content] if isinstance(content, bool) else value_text(content)
        if content is None:
            text = _ABSENT.get(field, "none")
        elif field in ("revision", "source", "digest"):
            text = text[:_DIGITS]
        found.append((prefix + _WORDS.get(words, words), text))
    return tuple(found)


def recipe_facts(recipe: Recipe, *, prefix: str = "") -> Facts:
    """Every value of a recipe that makes it another training, its name aside."""
    return _fields_of(recipe, prefix, _NOT_TRAINING)


def _weights(run: RunResult) -> Facts:
    weights = run.spec.weights
    trained = recipe_facts(weights.recipe, prefix="pretraining ") if weights.recipe else ()
    facts = _fields_of(weights, "weights ", frozenset({"recipe", "name"}))
    return (("weights", weights.name), *facts, *trained)


def _recipe(run: RunResult) -> Facts:
    """The training, together with the part it plays: recipes of one part only are compared."""
    return recipe_facts(run.spec.recipe)


def part_of_recipe(method: MethodSpec) -> str:
    """Which of a sweep's recipes a method trains by: ``finetuning``, ``pretraining`` or ``none``."""
    mode, schedule = method.finetuning, method.schedule
    if mode.recipe != "finetuning":
        return mode.recipe
    return "finetuning" if schedule.start == "trained" or schedule.train_after else "pretraining"


def _search(run: RunResult) -> Facts:
    return recipe_facts(run.spec.search, prefix="search ") if run.spec.search else ()


def _pruned_parts(run: RunResult) -> Facts:
    return (
        ("pruning of the classifier", _TOLD[run.spec.prune_classifier]),
        ("pruning of biases", _TOLD[run.spec.prune_biases]),
        ("bounds on layers", run.spec.constraints.label or "none"),
    )


def _objective(run: RunResult) -> Facts:
    objective = run.spec.task.objective
    metrics = ", ".join(metric.name for metric in objective.metrics)
    return (*_fields_of(objective, "objective ", frozenset({"metrics"})), ("metrics", metrics))


def _machine(run: RunResult) -> Facts:
    """What a run's numbers may depend on beside its specification; the commit is the checklist's matter."""
    p = run.provenance
    named = {"device": p.device, "processor": p.processor, "threads": str(p.threads), "Python": p.python}
    return tuple((named | dict(sorted(p.versions.items()))).items())


def _seed(run: RunResult) -> Facts:
    return (("seeds", str(run.spec.seed)),)


_AGAIN = "Run the methods that differ again under the condition of the others."
RECIPE = Aspect(
    "unequal-training",
    "Methods were trained by different recipes",
    "Compare at equal training, or train every method by each recipe.",
    _recipe,
)
_UNEQUAL = functools.partial(Aspect, "unequal-conditions")
ASPECTS = (
    _UNEQUAL("Methods ran on different data", _AGAIN, lambda run: _fields_of(run.spec.data)),
    _UNEQUAL("Methods ran on different networks", _AGAIN, lambda run: _fields_of(run.spec.model)),
    _UNEQUAL("Methods were judged by different objectives", _AGAIN, _objective),
    _UNEQUAL("Runs started from different initial weights", _AGAIN, _weights),
    _UNEQUAL("Masks were searched for by different recipes", _AGAIN, _search),
    _UNEQUAL("Methods pruned different parts of the network", _AGAIN, _pruned_parts),
    _UNEQUAL("Methods ran on different machines or versions", _AGAIN, _machine, by_seed=False),
    _UNEQUAL("Methods ran with different seeds", _AGAIN, _seed, by_seed=False),
)


def unequal_conditions(results: Sequence[RunResult], aspects: Sequence[Aspect] = ASPECTS) -> Iterator[Pitfall]:
    """Methods, or seeds, of one dataset and network that have other values of an aspect than most.

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
        named: set[str] = set()
        for sentence, odd in _compare(rows, lambda row: row[0], "method"):
            named |= set(odd)
            yield _pitfall(aspect, place, sentence, [key for m, _, _, key in rows if m in odd])
        if not aspect.by_seed:
            continue
        yield from _seed_by_seed(aspect, place, [row for row in rows if row[0] not in named])


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
