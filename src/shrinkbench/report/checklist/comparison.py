"""Appendix B, fourth part: what pruned networks are compared with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence, Set

from shrinkbench.report.checklist.causes import Point, joined, say
from shrinkbench.report.checklist.conditions import explain_apart
from shrinkbench.report.checklist.evidence import Evidence, removes_as_much
from shrinkbench.report.checklist.lines import Judgement, listing, rule, satisfied, undecidable, violated
from shrinkbench.report.checklist.measurement import SIZE_FIGURE
from shrinkbench.report.checklist.roles import (
    is_baseline,
    is_control,
    is_global,
    is_magnitude,
    is_plain,
    is_random,
    is_uniform,
)
from shrinkbench.results.record import RunResult
from shrinkbench.spec import Amount, MethodSpec


def _baseline(
    evidence: Evidence, wanted: Callable[[MethodSpec, Amount], bool], what: str, needed: str
) -> Judgement:
    """Whether a baseline was run wherever a judged method was: same task, amounts and seeds.

    One that missed the amount was not run at it, unless the judged method fell as short.
    """
    covered: dict[tuple[str, str, int], list[tuple[str, RunResult]]] = defaultdict(list)
    for (task, name, amount), runs in evidence.cells.items():
        for run in runs:
            if is_plain(run.spec.method) and wanted(run.spec.method, run.spec.amount):
                covered[task, amount, run.spec.seed].append((name, run))
    beside: dict[Point, set[str]] = {}
    for cell, runs in evidence.cells.items():
        for run in runs if cell[1] in evidence.proposed else ():
            others = covered[cell[0], cell[2], run.spec.seed]
            beside[*cell, run.spec.seed] = {name for name, other in others if removes_as_much(other, run)}
    lacking = [point for point, others in beside.items() if not others]
    names = list(dict.fromkeys(name for runs in covered.values() for name, _ in runs))
    if lacking or not names:
        return violated(
            f"No {what} beside {say(lacking, evidence.judged_points) or 'any method'}.",
            *explain_apart(evidence, lacking),
            needed=needed,
            figure=SIZE_FIGURE,
        )
    return satisfied(
        f"Run on the task of every judged method, at its every amount and with its every seed: "
        f"{_say_baselines(names, list(beside.values()))}.",
        figure=SIZE_FIGURE,
    )


def _say_baselines(names: Sequence[str], beside: Sequence[Set[str]]) -> str:
    """The baselines that stand beside every run; where none does so alone, those that do so together."""
    every = [name for name in names if all(name in others for others in beside)]
    together = [name for name in names if any(name in others for others in beside)]
    return listing(every) if every else f"one of {listing(together)} (none of them beside every run)"


def _same_proportions(evidence: Evidence, kind: str) -> Judgement:
    """Whether every run of a judged method has a control of its seed that keeps as much of every layer."""
    lacking: list[Point] = []
    examples: list[str] = []
    for task, method in evidence.curves(evidence.proposed):
        for (amount, seed), keys in evidence.same_proportions(task, method, kind).items():
            if keys:
                examples += keys[:1]
            else:
                lacking.append((task, method, amount, seed))
    if lacking or not examples:
        where = say(lacking, evidence.judged_points) or "any method"
        return violated(
            f"No {kind} run of the same seed keeps as much of every layer as: {where}.",
            *explain_apart(evidence, lacking),
            needed=f"Run {kind} pruning with the layerwise proportions of each method, for every seed.",
            figure="index.html#layers",
        )
    drawn = any(not evidence.by_key[key].spec.method.allocation.exact for key in examples)
    return satisfied(
        f"Beside every run of a judged method, a {kind} run of the same seed keeps as many weights of every "
        f"layer (compared layer by layer{', weights drawn one by one up to chance' if drawn else ''}).",
        figure="index.html#layers",
        runs=tuple(dict.fromkeys(examples))[:12],
    )


@rule("random")
def _random(evidence: Evidence) -> Judgement:
    """Any random pruning."""
    return _baseline(evidence, lambda m, _: is_random(m), "random pruning", "Run the method random.")


@rule("random-global")
def random_global(evidence: Evidence) -> Judgement:
    """Random pruning that does not look at layers."""
    return _baseline(
        evidence,
        lambda m, amount: is_random(m) and is_global(m, amount),
        "global random pruning",
        "Run the method random to the same compressions.",
    )


@rule("random-same-proportions")
def random_same_proportions(evidence: Evidence) -> Judgement:
    """Random pruning of the same shares of every layer."""
    return _same_proportions(evidence, "random")


@rule("magnitude")
def _magnitude(evidence: Evidence) -> Judgement:
    """Any magnitude pruning."""
    return _baseline(
        evidence, lambda m, _: is_magnitude(m), "magnitude pruning", "Run the method global_magnitude."
    )


@rule("magnitude-global-or-uniform")
def magnitude_global_or_uniform(evidence: Evidence) -> Judgement:
    """Magnitude pruning by one threshold, or of equal shares."""
    return _baseline(
        evidence,
        lambda m, amount: is_magnitude(m) and (is_global(m, amount) or is_uniform(m, amount)),
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
        f"Run besides plain magnitude and random pruning and controls: {listing(others) or 'nothing'}.",
        needed="“We compare to <techniques>, which are the relevant ones because <reason>.”",
    )


@rule("how-compared")
def how_compared(evidence: Evidence) -> Judgement:
    """Whether every run says which shrinkbench carried it out."""
    if not evidence.results:
        return violated("No run is finished.", needed="Run the experiment.")
    unsigned = sum("shrinkbench" not in run.provenance.versions for run in evidence.results)
    if unsigned:
        return undecidable(
            f"{unsigned} of {len(evidence.results)} results do not record which shrinkbench carried them out.",
            needed="“The numbers of these runs come from <source>.”",
        )
    versions = sorted({run.provenance.versions["shrinkbench"] for run in evidence.results})
    foreign = [name for name, method in evidence.methods.items() if method.sources]
    facts = [
        f"All {len(evidence.results)} results record that shrinkbench ({joined(versions)}) carried them out."
    ]
    if foreign:
        facts.append(f"Code of plug-ins took part in {listing(foreign)}.")
    return satisfied(*facts)
