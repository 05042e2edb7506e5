"""The recommendations of Section 6."""

from __future__ import annotations

from collections import defaultdict

from shrinkbench.cells import say_count
from shrinkbench.report.checklist.causes import Point, joined, say
from shrinkbench.report.checklist.conditions import (
    explain_apart,
    find_apart,
    find_conditions,
    find_unlike_measurement,
    find_unlike_treatment,
)
from shrinkbench.report.checklist.description import undescribed_data
from shrinkbench.report.checklist.evidence import (
    FEWEST_PAIRS,
    FEWEST_POINTS,
    LARGE_DATASETS,
    OLD_NETWORKS,
    TOY_DATASETS,
    Evidence,
)
from shrinkbench.report.checklist.lines import Judgement, inapplicable, listing, rule, satisfied, violated
from shrinkbench.report.checklist.measurement import (
    SIZE_FIGURE,
    always_stored,
    counted,
    error_bars,
)
from shrinkbench.report.checklist.roles import is_control
from shrinkbench.report.statistics.places import pair_of

MOST_TOLD = 6
"""Conditions that are told of, where more differ."""


@rule("identify")
def _identify(evidence: Evidence) -> Judgement:
    """Names with one definition, and digests of data and weights."""
    vague = undescribed_data(evidence)
    if vague:
        return vague
    pairs = sorted({f"{r.spec.data.name} / {r.spec.model.name}" for r in evidence.results})
    return satisfied(f"Listed in one place under Provenance: {listing(pairs)}; metrics in docs/metrics.md.")


@rule("pairs")
def pairs(evidence: Evidence) -> Judgement:
    """Pairs that are neither toy nor outdated, one of them large."""
    every = sorted({(r.spec.data.name, r.spec.model.name) for r in evidence.results})
    compared = _compared_pairs(evidence)
    fresh = _first_names(evidence)
    modern = [pair for pair in every if counts(*pair) and pair in compared and pair in fresh]
    large = [pair for pair in modern if is_large(pair[0])]
    facts = [f"Pairs that count: {listing([' / '.join(p) for p in modern]) or 'none'}."]
    old = [" / ".join(p) for p in every if not counts(*p)]
    again = [" / ".join(p) for p in every if counts(*p) and p in compared and p not in fresh]
    idle = [" / ".join(p) for p in every if counts(*p) and p not in compared]
    if again:
        facts.append(f"The same data under another name, which count once: {listing(again)}.")
    if old:
        facts.append(f"Toy data or outdated networks, which do not count: {listing(old)}.")
    if idle:
        facts.append(f"No judged method was run beside another, so that they do not count: {listing(idle)}.")
    if len(modern) < FEWEST_PAIRS or not large:
        if not large:
            facts.append("No pair that counts is large-scale (ImageNet, Places365).")
        return violated(*facts, needed="Add pairs of a dataset and a network, one of them large-scale.")
    return satisfied(*facts)


def _first_names(evidence: Evidence) -> set[tuple[str, str]]:
    """Of every pair, by the content of the data, the first of its names."""
    names: dict[tuple[str, str], tuple[str, str]] = {}
    for task in sorted(evidence.tasks.values(), key=lambda task: (task.data.name, task.model.name)):
        names.setdefault(pair_of(task), (task.data.name, task.model.name))
    return set(names.values())


def _compared_pairs(evidence: Evidence) -> set[tuple[str, str]]:
    """Pairs on which a judged method was run at an amount at which another method was run too."""
    methods: dict[tuple[str, str], set[str]] = defaultdict(set)
    for task, method, amount in evidence.cells:
        methods[task, amount].add(method)
    return {
        (evidence.tasks[task].data.name, evidence.tasks[task].model.name)
        for (task, _), found in methods.items()
        if len(found) > 1 and found.intersection(evidence.proposed)
    }


def counts(dataset: str, network: str) -> bool:
    """Whether a pair is neither a toy nor outdated."""
    return dataset not in TOY_DATASETS and network not in OLD_NETWORKS


def is_large(dataset: str) -> bool:
    """Whether a dataset is of ImageNet's scale."""
    return dataset in LARGE_DATASETS


@rule("both-sizes")
def both_sizes(evidence: Evidence) -> Judgement:
    """Both are stored for every run, by the definitions of the line; a speedup is one where it was counted."""
    return counted(evidence, "state compression and theoretical speedup")


@rule("both-accuracies")
def both_accuracies(evidence: Evidence) -> Judgement:
    """Both are stored for every run."""
    classifying = [r for r in evidence.results if "top5" in {m.name for m in r.spec.task.objective.metrics}]
    if evidence.results and not classifying:
        return inapplicable("No task has top-5 accuracy: it is of classification among many classes.")
    bare = [r.key for r in classifying if r.after and not {"top1", "top5"} <= r.after.metrics.keys()]
    if bare:
        return violated(
            f"{say_count(len(bare), 'run states', 'runs state')} no top-1 or no top-5.",
            needed="Measure both where the task is classification.",
            runs=tuple(bare),
        )
    return always_stored(evidence, "state top-1 and top-5", "cells.csv")


@rule("competing-curves")
def competing_curves(evidence: Evidence) -> Judgement:
    """At least two methods on every task, with a curve where any of them has one.

    Controls of a method do not compete with it; nor does a single amount with a curve.
    """
    methods: dict[str, list[str]] = defaultdict(list)
    amounts = {curve: len(evidence.amounts(*curve)) for curve in evidence.curves()}
    curved = {task for (task, _), count in amounts.items() if count > 1}
    for (task, method), count in amounts.items():
        if (count > 1 or task not in curved) and not is_control(evidence.methods[method]):
            methods[task].append(method)
    alone = [task for task in evidence.tasks if len(methods[task]) < 2]
    if alone or not methods:
        named = [f"{joined(methods[task]) if methods[task] else 'controls'} on {task}" for task in alone]
        lacking: list[Point] = [(task, None, None, None) for task in alone]
        return violated(
            f"Without a competitor: {listing(named) or 'everything'}.",
            *explain_apart(evidence, lacking),
            needed="Run at least one more method there.",
            figure=SIZE_FIGURE,
        )
    fewest = min(len(names) for names in methods.values())
    return satisfied(f"Every task has at least {fewest} methods beside controls.", figure=SIZE_FIGURE)


@rule("operating-points")
def operating_points(evidence: Evidence) -> Judgement:
    """Five amounts for every curve."""
    few: dict[tuple[str, ...], list[Point]] = defaultdict(list)
    grid: list[Point] = []
    for task, method in evidence.curves():
        amounts = tuple(evidence.amounts(task, method))
        grid.append((task, method, None, None))
        if len(amounts) < FEWEST_POINTS:
            few[amounts].append(grid[-1])
    if few or not grid:
        places = [f"only {joined(amounts)} for {say(curves, grid)}" for amounts, curves in few.items()]
        return violated(
            f"Fewer than {FEWEST_POINTS} points: {listing(places) or 'no pruned network'}.",
            needed="Run the missing ratios of {2, 4, 8, 16, 32}.",
            figure=SIZE_FIGURE,
        )
    fewest = min(len(evidence.amounts(task, method)) for task, method in evidence.curves())
    amounts_of_all = list(dict.fromkeys(amount for _, _, amount in evidence.cells))
    return satisfied(
        f"Every curve has at least {fewest} amounts of pruning; run were {listing(amounts_of_all, limit=12)}.",
        figure=SIZE_FIGURE,
    )


@rule("means-and-deviations")
def means_and_deviations(evidence: Evidence) -> Judgement:
    """Decided as the error bars are."""
    return error_bars(evidence)


@rule("same-code")
def same_code(evidence: Evidence) -> Judgement:
    """Within a task: one version of every library, one commit, machine and way of loading the data."""
    conditions = find_conditions(evidence)
    unlike = find_unlike_treatment(evidence)
    apart = [a for a in find_apart(evidence) if a.of_data]
    differing = [*conditions.differing, *unlike, *find_unlike_measurement(evidence)]
    faulty = [*(d.runs for d in differing), *(a.runs for a in apart)]
    unknown = listing(list(conditions.unrecorded))
    unrecorded = [f"Not recorded by every run, so unknown: {unknown}."] if unknown else []
    if differing or apart:
        told = [d.sentence for d in differing]
        more = [f"{len(told) - MOST_TOLD} more conditions differ."] if len(told) > MOST_TOLD else []
        return violated(
            "Runs that are compared differ in their conditions:",
            *told[:MOST_TOLD],
            *more,
            *(a.sentence for a in apart),
            *unrecorded,
            needed="Run the smaller part again as the larger was run.",
            runs=tuple(dict.fromkeys(key for runs in faulty for key in runs)),
        )
    return satisfied(
        f"All runs of a task have the same {joined(conditions.shared)} (as their provenance records).",
        "They read the same data (by digest) and normalisation, and were measured and validated on as many "
        "images; methods that are trained alike have the same augmentation, batch size and precision, and "
        "prune or spare classifier and biases alike.",
        *unrecorded,
    )
