"""Appendix B, third part: what the results consist of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from shrinkbench.cells import say_count
from shrinkbench.report.checklist.causes import Point, joined, say
from shrinkbench.report.checklist.conditions import explain_apart
from shrinkbench.report.checklist.evidence import FEWEST_SEEDS, Evidence, GridCell
from shrinkbench.report.checklist.lines import Judgement, listing, rule, satisfied, undecidable, violated
from shrinkbench.results.copies import find_copies, find_shared_starts, tells_its_network
from shrinkbench.results.record import RunResult
from shrinkbench.spec import Objective

SIZE_FIGURE = "figures/{metric}-compression.svg"
SPEED_FIGURE = "figures/{metric}-theoretical-speedup.svg"


@rule("range")
def compression_range(evidence: Evidence) -> Judgement:
    """Every judged method's curve must reach a point far below the control."""
    grid = _curves(evidence, evidence.proposed)
    found: dict[str, list[Point]] = {"narrow": [], "unknown": [], "flat": []}
    for task, method in evidence.curves(evidence.proposed):
        state = evidence.collapsed(task, method)
        if len(evidence.amounts(task, method)) < 2:
            found["narrow"].append((task, method, None, None))
        elif not state:
            found["flat" if state is False else "unknown"].append((task, method, None, None))
    if any(found.values()):
        facts = {
            "narrow": "One operating point is no range",
            "unknown": f"Without the control of every run, nobody can tell how far {evidence.measured} falls",
            "flat": _never(evidence),
        }
        return violated(
            *(f"{facts[name]}: {say(places, grid)}." for name, places in found.items() if places),
            needed=f"Add larger compression ratios until {evidence.measured} collapses, and the control.",
            figure=SIZE_FIGURE,
        )
    if not grid:
        return violated("No pruned network was run.", needed="Run compression ratios above 1.")
    return satisfied(
        f"The curve of every judged method spans several amounts; at one of them {_lies(evidence)} "
        "the runs' own controls.",
        figure=SIZE_FIGURE,
    )


def _never(evidence: Evidence) -> str:
    if evidence.measured == "accuracy":
        return f"Mean accuracy never falls {evidence.collapse} below the runs' own controls"
    return f"Mean {evidence.measured} is never {evidence.collapse} worse than the runs' own controls"


def _lies(evidence: Evidence) -> str:
    if evidence.measured == "accuracy":
        return f"mean accuracy lies at least {evidence.collapse} below that of"
    return f"mean {evidence.measured} is at least {evidence.collapse} worse than that of"


def _curves(evidence: Evidence, methods: Sequence[str] | None = None) -> list[Point]:
    """Every pair of task and method that was run, as points of a grid."""
    return [(task, method, None, None) for task, method in evidence.curves(methods)]


@rule("raw-accuracy")
def raw_accuracy(evidence: Evidence) -> Judgement:
    """The metric itself, not its change, is stored for every run that is done; planned ones have to be done.

    A run that failed is a result that says so.
    """
    gaps = evidence.observations.gaps
    disputed = gaps["key"].isin(list(evidence.disputed))
    facts = []
    for what, rows in (
        ("Planned points without a run", gaps[gaps["kind"] == "missing"]),
        ("Points with another accuracy, or none, in another source", gaps[disputed]),
    ):
        points = [*rows[["task", "method", "amount", "seed"]].itertuples(index=False, name=None)]
        if points:
            facts.append(f"{what}: {say(points, [*evidence.grid, *points])}.")
    if facts:
        return violated(
            *facts,
            needed="Run what is missing, and find out which of two results of one key is what it says.",
            runs=tuple(gaps.loc[disputed, "key"]),
            figure=SIZE_FIGURE,
        )
    return always_stored(evidence, f"state {metrics_of(evidence)} on the test split", SIZE_FIGURE)


def metrics_of(evidence: Evidence) -> str:
    """The metrics that every finished run of a kind of task states, by name."""
    stated: dict[Objective, list[set[str]]] = defaultdict(list)
    for run in evidence.results:
        if run.after is not None:
            stated[run.spec.task.objective].append(set(run.after.metrics))
    told = [
        listing([m.name for m in objective.metrics if all(m.name in metrics for metrics in found)])
        for objective, found in stated.items()
    ]
    return "; or ".join(dict.fromkeys(told))


def always_stored(evidence: Evidence, what: str, figure: str) -> Judgement:
    """A line that every finished run meets, because no result is stored without it."""
    if not evidence.results:
        return violated("No run is finished.", needed="Run the experiment.")
    return satisfied(f"All {len(evidence.results)} finished runs {what}.", figure=figure)


@rule("seeds")
def seeds(evidence: Evidence) -> Judgement:
    """At least three seeds in every cell, the same ones for every method of a task, and no copies."""
    usual = _usual_seeds(evidence)
    facts, runs = [], []
    few = [task for task, common in usual.items() if len(common) < FEWEST_SEEDS]
    if few:
        numbers = sorted({len(usual[task]) for task in few})
        facts.append(f"Fewer than {FEWEST_SEEDS} seeds ({joined(numbers)}) on {listing(few)}.")
    other = {
        cell: tuple(sorted({r.spec.seed for r in members}))
        for cell, members in evidence.cells.items()
        if not {r.spec.seed for r in members} <= set(usual[cell[0]])
    }
    lacking: list[Point] = [
        (*cell, seed)
        for cell, members in evidence.cells.items()
        for seed in usual[cell[0]]
        if cell not in other and seed not in {r.spec.seed for r in members}
    ]
    lacking += _empty_cells(evidence)
    if lacking:
        own = [point for point in evidence.grid if point[:3] not in other]
        facts.append(f"Missing: {say(lacking, [*own, *lacking])}.")
        facts += explain_apart(evidence, lacking)
    facts += _say_other_seeds(other, usual, evidence)
    runs += [r.key for cell in other for r in evidence.cells[cell]]
    copies = _copies(evidence)
    if copies:
        runs += [r.key for r in copies]
        controls = [evidence.point_of(r) for r in evidence.results if r.spec.is_control]
        where = say([evidence.point_of(r) for r in copies], [*evidence.grid, *controls])
        facts.append(
            f"Runs that share a record of training with one of another seed, up to rounding, copies: {where}."
        )
    for shared in find_shared_starts(evidence.results):
        runs += [r.key for r in shared]
        facts.append(
            f"Seeds {joined(r.spec.seed for r in shared)} on {evidence.point_of(shared[0])[0]} start from one "
            "network: their controls read alike before training, up to rounding."
        )
    if facts or not usual:
        fewer = {p[:3] for p in lacking} | {cell for cell in evidence.cells if cell[0] in few}
        runs += [r.key for cell in evidence.cells if cell in fewer for r in evidence.cells[cell]]
        facts = facts or ["No pruned network was run."]
        return violated(*facts, needed="Run the missing seeds.", runs=tuple(dict.fromkeys(runs)))
    counts = [str(count) for count in sorted({len(s) for s in usual.values()})]
    starts = {
        (r.spec.weights, r.spec.task)
        for r in evidence.results
        if r.spec.weights.are_shared and r.spec.method.start == "trained" and not r.spec.method.from_scratch
    }
    common = {weights for weights, _ in starts}
    given = sorted({weights.name for weights in common})
    told = _say_seeds(evidence, joined(counts))
    if given:
        origin = "published " if all(weights.kind == "file" for weights in common) else ""
        one = "one initial network" if len(starts) == 1 else "one initial network each"
        return undecidable(
            f"{told} Yet runs from {listing(given)} share {one}, whatever their seed.",
            needed=f"“Runs start from the {origin}weights {listing(given)}; their deviations do not "
            "include variation over initial networks.”",
        )
    return satisfied(
        f"{told} Each seed has its own initial network{_say_starts(evidence)}.", figure=SIZE_FIGURE
    )


def _empty_cells(evidence: Evidence) -> list[Point]:
    """Points of cells without any finished run, though runs of them were planned or failed."""
    gaps = evidence.observations.gaps
    points = gaps[["task", "method", "amount", "seed"]].itertuples(index=False, name=None)
    return [point for point in points if point[:3] not in evidence.cells]


def _say_seeds(evidence: Evidence, counts: str) -> str:
    """How many seeds cells hold: those of every method and amount, or those that were run."""
    amounts: dict[str, set[frozenset[str]]] = defaultdict(set)
    for task, method in evidence.curves():
        amounts[task].add(frozenset(evidence.amounts(task, method)))
    if all(len(sets) == 1 for sets in amounts.values()):
        return f"Every cell holds {counts} seeds, the same for every method and amount of a task."
    return (
        f"Every cell of method and amount that was run holds {counts} seeds, within a task the same; not every "
        "method was run at every amount."
    )


def _say_starts(evidence: Evidence) -> str:
    """What is known of initial networks beside the specification: controls that tell theirs, seed by seed."""
    told = {
        (run.spec.task, run.spec.seed)
        for run in evidence.results
        if run.spec.is_control and run.before is not None and tells_its_network(run.before)
    }
    every = {(run.spec.task, run.spec.seed) for runs in evidence.cells.values() for run in runs}
    if every <= told:
        return ""
    if not told:
        return " by its specification; no control was measured before training"
    seeds = sorted({seed for _, seed in every - told})
    return f" by its specification; not every control of seed {joined(seeds)} was measured before training"


def _usual_seeds(evidence: Evidence) -> dict[str, tuple[int, ...]]:
    """The seeds that most cells of a task have; of equally frequent ones, the most seeds."""
    sets: dict[str, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for (task, _, _), runs in evidence.cells.items():
        sets[task][tuple(sorted({r.spec.seed for r in runs}))] += 1
    return {task: max(found, key=lambda s: (found[s], len(s), s)) for task, found in sets.items()}


def _say_other_seeds(
    other: Mapping[GridCell, tuple[int, ...]], usual: Mapping[str, tuple[int, ...]], evidence: Evidence
) -> list[str]:
    """Which cells have seeds that others of their task do not have."""
    pairs: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Point]] = defaultdict(list)
    for cell, own in other.items():
        pairs[own, usual[cell[0]]].append((*cell, None))
    grid: list[Point] = [(*cell, None) for cell in evidence.cells]
    return [
        f"Other seeds for {say(cells, grid)}: {joined(own)}, where others have {joined(common)}."
        for (own, common), cells in pairs.items()
    ]


def _copies(evidence: Evidence) -> list[RunResult]:
    """Runs, controls included, that share a record of training with one of their cell and an earlier seed."""
    controls: dict[tuple[str | None, str | None], list[RunResult]] = defaultdict(list)
    for run in evidence.results:
        if run.spec.is_control:
            controls[evidence.point_of(run)[:2]].append(run)
    cells = [*evidence.cells.values(), *controls.values()]
    return [copy for runs in cells for copies in find_copies(runs) for copy in copies[1:]]


@rule("error-bars")
def error_bars(evidence: Evidence) -> Judgement:
    """Two runs of a cell are the least that has a deviation."""
    single = [cell for cell, runs in evidence.cells.items() if len(runs) < 2]
    if single:
        grid: list[Point] = [(*cell, None) for cell in evidence.cells]
        return violated(
            f"A single run, which has no deviation: {say([(*cell, None) for cell in single], grid)}.",
            needed="Run more seeds.",
            runs=tuple(r.key for cell in single for r in evidence.cells[cell]),
        )
    return satisfied(
        "Figures show the mean and one sample standard deviation over seeds; tables add n and 95 % intervals.",
        figure=SIZE_FIGURE,
    )


@rule("flops")
def flops(evidence: Evidence) -> Judgement:
    """Multiply-adds of every network, counted by one counter."""
    return counted(evidence, "state multiply-adds before and after pruning")


def counted(evidence: Evidence, what: str) -> Judgement:
    """A line that every finished run meets whose multiply-adds could be counted."""
    uncounted = tuple(r.key for r in evidence.results if r.size is None or not r.size.multiply_adds)
    if uncounted:
        return violated(
            f"{say_count(len(uncounted), 'run counts', 'runs count')} no multiply-adds.",
            needed="Run them again with a network whose operations can be counted.",
            runs=uncounted,
        )
    return always_stored(evidence, what, SPEED_FIGURE)
