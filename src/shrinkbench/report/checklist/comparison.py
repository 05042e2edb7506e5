"""Appendix B, fourth part: what pruned networks are compared with."""

from __future__ import annotations

from collections.abc import Callable

from shrinkbench.report.checklist.evidence import (
    Evidence,
    is_baseline,
    is_control,
    is_global,
    is_magnitude,
    is_plain,
    is_random,
    is_uniform,
)
from shrinkbench.report.checklist.lines import Judgement, listing, rule, satisfied, undecidable, violated
from shrinkbench.report.checklist.measurement import SIZE_FIGURE
from shrinkbench.spec import MethodSpec


def _baseline(evidence: Evidence, wanted: Callable[[MethodSpec], bool], what: str, needed: str) -> Judgement:
    """Whether a baseline was run wherever a proposed method was: same task, same amounts."""
    names = [name for name, method in evidence.methods.items() if wanted(method) and is_plain(method)]
    lacking = []
    for task, method in evidence.curves(evidence.proposed):
        covered = {amount for name in names for amount in evidence.amounts(task, name)}
        absent = [amount for amount in evidence.amounts(task, method) if amount not in covered]
        if absent:
            lacking.append(f"{method} on {task} at {', '.join(absent)}")
    if lacking or not names:
        return violated(
            f"No {what} beside {listing(lacking) or 'any method'}.", needed=needed, figure=SIZE_FIGURE
        )
    return satisfied(f"Run at every point of every method: {listing(names)}.", figure=SIZE_FIGURE)


def _same_proportions(evidence: Evidence, kind: str) -> Judgement:
    """Whether every point of a proposed method has a control that keeps as much of every layer."""
    lacking, examples = [], []
    for task, method in evidence.curves(evidence.proposed):
        for amount, keys in evidence.same_proportions(task, method, kind).items():
            if keys:
                examples += keys[:1]
            else:
                lacking.append(f"{method} at {amount} on {task}")
    if lacking or not examples:
        return violated(
            f"No {kind} run keeps as much of every layer as {listing(lacking) or 'any method'}.",
            needed=f"Run {kind} pruning with the layerwise proportions of each method.",
            figure="index.html#layers",
        )
    return satisfied(
        f"At every point a {kind} run of the same seed keeps as much of every layer (compared layer by layer).",
        figure="index.html#layers",
        runs=tuple(examples[:12]),
    )


@rule("random")
def random(evidence: Evidence) -> Judgement:
    """Any random pruning."""
    return _baseline(evidence, is_random, "random pruning", "Run the method random.")


@rule("random-global")
def random_global(evidence: Evidence) -> Judgement:
    """Random pruning that does not look at layers."""
    return _baseline(
        evidence, lambda m: is_random(m) and is_global(m), "global random pruning", "Run the method random."
    )


@rule("random-same-proportions")
def random_same_proportions(evidence: Evidence) -> Judgement:
    """Random pruning of the same shares of every layer."""
    return _same_proportions(evidence, "random")


@rule("magnitude")
def magnitude(evidence: Evidence) -> Judgement:
    """Any magnitude pruning."""
    return _baseline(evidence, is_magnitude, "magnitude pruning", "Run the method global_magnitude.")


@rule("magnitude-global-or-uniform")
def magnitude_global_or_uniform(evidence: Evidence) -> Judgement:
    """Magnitude pruning by one threshold, or of equal shares."""
    return _baseline(
        evidence,
        lambda m: is_magnitude(m) and (is_global(m) or is_uniform(m)),
        "global or uniform magnitude pruning",
        "Run the method global_magnitude or layerwise_magnitude.",
    )


@rule("magnitude-same-proportions")
def magnitude_same_proportions(evidence: Evidence) -> Judgement:
    """Magnitude pruning of the same shares of every layer; a magnitude method is its own."""
    return _same_proportions(evidence, "magnitude")


@rule("state-of-the-art")
def state_of_the_art(evidence: Evidence) -> Judgement:
    """Which techniques are relevant is not in the results."""
    others = [n for n, m in evidence.methods.items() if not is_baseline(m) and not is_control(m)]
    return undecidable(
        f"Run beside the magnitude and random baselines: {listing(others) or 'nothing'}.",
        needed="“We compare to <techniques>, which are the relevant ones because <reason>.”",
    )


@rule("how-compared")
def how_compared(evidence: Evidence) -> Judgement:
    """Every number in a store comes from a run of the methods in this library."""
    if not evidence.results:
        return violated("No run is finished.", needed="Run the experiment.")
    return satisfied(
        f"All {len(evidence.results)} results are runs of implementations inside one library under one "
        "protocol; none is copied from a paper."
    )
