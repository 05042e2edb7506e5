"""Appendix B, third part: what the results consist of."""

from __future__ import annotations

from collections import defaultdict

from shrinkbench.report.checklist.evidence import COLLAPSE, FEWEST_SEEDS, Evidence
from shrinkbench.report.checklist.lines import Judgement, listing, rule, satisfied, undecidable, violated

SIZE_FIGURE = "figures/top1-compression.svg"
SPEED_FIGURE = "figures/top1-theoretical-speedup.svg"


@rule("range")
def compression_range(evidence: Evidence) -> Judgement:
    """Every proposed method's curve must reach a point far below the control."""
    narrow, flat = [], []
    for task, method in evidence.curves(evidence.proposed):
        amounts = evidence.amounts(task, method)
        if len(amounts) < 2:
            narrow.append(f"{method} on {task} (only {amounts[0]})")
        elif not evidence.collapsed(task, method):
            flat.append(f"{method} on {task} (up to {amounts[-1]})")
    if narrow or flat:
        facts = [f"One operating point is no range: {listing(narrow)}."] if narrow else []
        if flat:
            facts.append(f"Never {100 * COLLAPSE:.0f} points below the control: {listing(flat)}.")
        return violated(
            *facts,
            needed="Add larger compression ratios until accuracy collapses.",
            figure=SIZE_FIGURE,
        )
    if not evidence.cells:
        return violated("No pruned network was run.", needed="Run compression ratios above 1.")
    return satisfied(
        f"Every curve spans several amounts and falls at least {100 * COLLAPSE:.0f} points below the control.",
        figure=SIZE_FIGURE,
    )


@rule("raw-accuracy")
def raw_accuracy(evidence: Evidence) -> Judgement:
    """The metric itself, not its change, is stored for every run that is done."""
    return always_stored(evidence, f"state {metrics_of(evidence)} on the test split", SIZE_FIGURE)


def metrics_of(evidence: Evidence) -> str:
    """The metrics that every finished run states, by name."""
    stated = [set(r.after.metrics) for r in evidence.results if r.after is not None]
    named = (m.name for r in evidence.results[:1] for m in r.spec.task.objective.metrics)
    return listing([name for name in named if all(name in metrics for metrics in stated)])


def always_stored(evidence: Evidence, what: str, figure: str) -> Judgement:
    """A line that every finished run meets, because no result is stored without it."""
    if not evidence.results:
        return violated("No run is finished.", needed="Run the experiment.")
    return satisfied(f"All {len(evidence.results)} finished runs {what}.", figure=figure)


@rule("seeds")
def seeds(evidence: Evidence) -> Judgement:
    """At least three seeds in every cell, the same ones for every method of a task."""
    of_task: dict[str, set[int]] = defaultdict(set)
    for (task, _, _), runs in evidence.cells.items():
        of_task[task] |= {r.spec.seed for r in runs}
    short = [
        f"{method} at {amount} on {task} (seeds {', '.join(str(r.spec.seed) for r in runs)})"
        for (task, method, amount), runs in evidence.cells.items()
        if len({r.spec.seed for r in runs}) < max(FEWEST_SEEDS, len(of_task[task]))
    ]
    if short or not evidence.cells:
        return violated(
            f"Cells with fewer seeds than the others, or than {FEWEST_SEEDS}: {listing(short)}.",
            needed="Run the missing seeds.",
            runs=tuple(
                r.key
                for (task, _, _), runs in evidence.cells.items()
                if len(runs) < max(FEWEST_SEEDS, len(of_task[task]))
                for r in runs
            ),
        )
    counts = sorted({len(s) for s in of_task.values()})
    given = sorted({r.spec.weights.name for r in evidence.results if r.spec.weights.kind == "file"})
    facts = f"Every cell holds {listing([str(c) for c in counts])} seeds, the same for every method."
    if given:
        return undecidable(
            f"{facts} Yet all runs from {listing(given)} share one initial network.",
            needed=f"“All runs start from the published weights {listing(given)}; the deviations do not "
            "include variation over initial networks.”",
        )
    return satisfied(f"{facts} Each seed has its own initial network.", figure=SIZE_FIGURE)


@rule("error-bars")
def error_bars(evidence: Evidence) -> Judgement:
    """Two runs of a cell are the least that has a deviation."""
    single = [(cell, runs) for cell, runs in evidence.cells.items() if len(runs) < 2]
    if single:
        cases = [f"{method} at {amount} on {task}" for (task, method, amount), _ in single]
        return violated(
            f"Cells with a single run: {listing(cases)}.",
            needed="Run more seeds.",
            runs=tuple(r.key for _, runs in single for r in runs),
        )
    return satisfied(
        "Figures show the mean and one sample standard deviation over seeds; tables add n and 95 % intervals.",
        figure=SIZE_FIGURE,
    )


@rule("flops")
def flops(evidence: Evidence) -> Judgement:
    """Multiply-adds of every network, counted by one counter."""
    return always_stored(evidence, "state multiply-adds before and after pruning", SPEED_FIGURE)
