"""The runs that a set of results lacks to satisfy the checklist, as grids that a sweep can run."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from shrinkbench.cells import say_count
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.checklist.evidence import (
    FEWEST_PAIRS,
    FEWEST_POINTS,
    FEWEST_SEEDS,
    OPERATING_POINTS,
    Evidence,
    gather,
)
from shrinkbench.report.checklist.recommendation import counts, is_large
from shrinkbench.report.checklist.roles import (
    is_automatic,
    is_global,
    is_magnitude,
    is_plain,
    is_random,
    is_scratch_of,
    is_structured,
    is_uniform,
    is_uniform_counterpart,
    judged,
    same_method,
)
from shrinkbench.report.grids import Define, Grid, Pair, plan_grids
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Plan
from shrinkbench.spec import Amount, ChannelFraction, Compression, ExperimentSpec, MethodSpec, RunSpec

Resolve = Callable[[ExperimentSpec], Iterable[RunSpec]]

GIVEN = Compression(ratio=2)
"""Stands for whatever compressions a grid asks for."""
RANDOM, UNIFORM_RANDOM = "random", "layerwise_random"
GLOBAL_MAGNITUDE, UNIFORM_MAGNITUDE = "global_magnitude", "layerwise_magnitude"


def same_proportions_name(score: str, method: str) -> str:
    """Name under which the library offers ``score`` pruning with the layerwise proportions of ``method``."""
    return f"{score}@{method}"


@dataclass(frozen=True)
class Repair:
    """What is missing: grids to sweep in order, the runs of them that are new, and what no run can mend.

    ``incomplete`` are keys of finished runs that were not measured before fine-tuning; they must be run again.
    ``reasons`` says, line by line, what the runs are for.
    """

    experiments: tuple[ExperimentSpec, ...]
    missing: tuple[RunSpec, ...]
    reasons: tuple[str, ...]
    incomplete: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def runs(self) -> int:
        """How many runs are missing."""
        return len(self.missing)


def plan_repair(
    plan: Plan,
    results: Sequence[RunResult],
    *,
    resolve: Resolve,
    define: Define,
    proposed: Sequence[str] = (),
    pairs: Sequence[Pair] = (),
) -> Repair:
    """Plan exactly the runs that turn violated lines of the checklist to satisfied.

    Per experiment and pair of dataset and network these are all methods with their random and magnitude
    controls, at all compressions, for all seeds. ``resolve`` gives the runs of a grid; ``pairs`` are added
    where fewer than three count; ``define`` tells what the library has under a name, if anything.
    """
    evidence = gather(results, proposed=proposed)
    reasons: dict[str, None] = {}
    notes: dict[str, None] = {}
    grids = plan_grids(plan, define)
    chosen = {evidence.methods[label] for label in evidence.proposed} if proposed else set()
    _add_baselines(grids, notes, define)
    for grid in grids:
        _add_seeds(grid)
    for grid in grids:
        _add_controls(grid, lambda: chosen or _judged(grids), evidence, notes, define)
        _add_points(grid, evidence, results, notes)
    done = {r.key for r in results if r.status == "done" and r.before}
    settled = done | {r.key for r in results if r.reachable is not None}  # nothing to gain from another try
    experiments, missing = [], dict[str, RunSpec]()
    for experiment, members in _as_experiments(grids):
        planned = all(grid.is_planned for grid in members)
        specs = [s for g in members for s in g.specs if s.target is None or s.target in g.compressions]
        lacking = _by_key(specs if planned else resolve(experiment), without=settled | missing.keys())
        if lacking:
            experiments.append(experiment)
            missing |= lacking
            reasons |= {reason: None for grid in members for reason in grid.reasons}
    for experiment in _new_pairs(grids, evidence, pairs, notes):
        experiments.append(experiment)
        reasons[f"pairs: {experiment.dataset[0]} / {experiment.model[0]}"] = None
        missing |= _by_key(resolve(experiment), without=settled | missing.keys())
    incomplete = tuple(r.key for r in results if r.status == "done" and r.key not in done)
    unfinished = sum(run.key in missing and run.key not in incomplete for run in plan.runs)
    if unfinished:
        reasons[f"planned runs that are not finished: {unfinished}"] = None
    if incomplete:
        those = say_count(len(incomplete), "finished run was", "finished runs were")
        reasons[f"{those} not measured before fine-tuning"] = None
    return Repair(tuple(experiments), tuple(missing.values()), tuple(reasons), incomplete, tuple(notes))


def _by_key(specs: Iterable[RunSpec], *, without: Collection[str]) -> dict[str, RunSpec]:
    """The runs by their keys, but for some."""
    return {key: spec for key, spec in ((spec.key, spec) for spec in specs) if key not in without}


def _add_seeds(grid: Grid) -> None:
    """Three seeds, and the seeds of any method for every other."""
    fresh = (seed for seed in itertools.count() if seed not in grid.seeds)
    added = [next(fresh) for _ in range(FEWEST_SEEDS - len(grid.seeds))]
    for seed in added:
        grid.reasons[f"seeds: {seed} on {grid.where}"] = None
    for method in dict.fromkeys(s.method for s in grid.specs):
        absent = grid.seeds - {s.seed for s in grid.specs if s.method == method}
        if absent:
            seeds = ", ".join(map(str, sorted(absent)))
            grid.reasons[f"seeds: {seeds} of {method.name} on {grid.where}"] = None
    grid.seeds.update(added)
    grid.added = grid.added or bool(added)


def _definitions(grid: Grid) -> set[MethodSpec]:
    """The methods that are compared on a grid, those that the repair adds included."""
    added = {definition[0] for definition in grid.methods.values() if definition is not None}
    return added | {s.method for s in grid.compared}


def _judged(grids: Iterable[Grid]) -> frozenset[MethodSpec]:
    """The methods that will be judged once everything planned is run."""
    return judged(set().union(*map(_definitions, grids)))


def _add_baselines(grids: Iterable[Grid], notes: dict[str, None], define: Define) -> None:
    """Global and uniform pruning by chance and by magnitude, where no method has that role."""
    for grid in grids:
        for name, role in _ROLES.items():
            if not any(role(method) and is_plain(method) for method in _definitions(grid)):
                _add_method(grid, name, "global and uniform baselines", notes, define)


_ROLES: dict[str, Callable[[MethodSpec], bool]] = {
    RANDOM: lambda m: is_random(m) and is_global(m),
    UNIFORM_RANDOM: lambda m: is_random(m) and (is_uniform(m) or not m.allocation.exact),
    GLOBAL_MAGNITUDE: lambda m: is_magnitude(m) and is_global(m),
    UNIFORM_MAGNITUDE: lambda m: is_magnitude(m) and is_uniform(m),
}


def _add_method(grid: Grid, name: str, why: str, notes: dict[str, None], define: Define) -> None:
    """Ask for the method ``name``, unless it is planned; a note where the library lacks it."""
    definition = define(name)
    if definition is None:
        notes[f"the library has no method '{name}' ({why}); that line stays as it is"] = None
        return
    method, amount = definition
    if any(same_method(s.method, method) and (amount is None or s.amount == amount) for s in grid.compared):
        return
    if amount is None and grid.experiment.channels and not method.structure.counts_channels:
        notes[f"'{name}' ({why}) removes no channels, which experiment '{grid.experiment.name}' counts"] = None
        return
    grid.methods[name] = definition
    grid.added = True
    grid.reasons[f"controls: {name} ({why})"] = None


def _add_controls(
    grid: Grid,
    chosen: Callable[[], Collection[MethodSpec]],
    evidence: Evidence,
    notes: dict[str, None],
    define: Define,
) -> None:
    """What each judged method is measured against, until methods that come so are measured in turn.

    That is random and magnitude pruning with its layerwise proportions, its architecture trained from scratch
    where it is structured, and equal shares where it settles the shares itself.
    """
    settled: set[str] = set()
    while open_names := [n for n, d in grid.methods.items() if n not in settled and d and d[0] in chosen()]:
        for name in open_names:
            settled.add(name)
            definition = grid.methods[name]
            if definition is None:
                continue
            method, amount = definition
            for score, has_kind in (("random", is_random), ("magnitude", is_magnitude)):
                if not has_kind(method) and not _has_own_control(grid, evidence, method, score):
                    why = f"{score} with the proportions of {name}"
                    _add_method(grid, same_proportions_name(score, name), why, notes, define)
            pairs = [other for other, its in _with_amounts(grid) if its == (amount or GIVEN)]
            if is_structured(method) and not any(is_scratch_of(other, method) for other in pairs):
                why = f"{name} from scratch at equal computation"
                _add_method(grid, f"{name}[finetuning=scratch-b]", why, notes, define)
            _add_uniform(grid, method, amount, notes, define)


def _with_amounts(grid: Grid) -> set[tuple[MethodSpec, Amount]]:
    """The methods that are compared on a grid, each with its amounts, of which compressions count as one."""
    named = {(d[0], d[1] or GIVEN) for d in grid.methods.values() if d is not None}
    return named | {(s.method, GIVEN if s.target is not None else s.amount) for s in grid.compared}


def _add_uniform(
    grid: Grid, method: MethodSpec, own: Amount | None, notes: dict[str, None], define: Define
) -> None:
    """Equal shares of the method's structure, at each amount where it settles the shares itself."""
    asked: list[Amount] = [own or GIVEN]
    if own is None:
        asked += [ChannelFraction(fraction=fraction) for fraction in grid.experiment.channels]
    for amount in asked:
        planned = _with_amounts(grid)
        found = any(is_uniform_counterpart(other, its, method, amount) for other, its in planned)
        if not found and is_automatic(method, amount):
            name = f"{UNIFORM_MAGNITUDE}[structure={method.structure.name}]"
            percent = f":{100 * amount.fraction:g}" if isinstance(amount, ChannelFraction) else ""
            _add_method(grid, name + percent, f"equal shares beside {method.name}", notes, define)


def _has_own_control(grid: Grid, evidence: Evidence, method: MethodSpec, score: str) -> bool:
    """Whether the results already show ``score`` pruning with the proportions of ``method``."""
    labels = [label for label, definition in evidence.methods.items() if definition == method]
    found = [
        evidence.own_controls(task, label, score)
        for task, label in evidence.curves(labels)
        if evidence.tasks[task] in grid.tasks
    ]
    return bool(found) and all(found)


def _add_points(grid: Grid, evidence: Evidence, results: Sequence[RunResult], notes: dict[str, None]) -> None:
    """The control, five operating points, and a ratio at which accuracy collapses."""
    where, network = grid.where, _largest_compression(grid, results)
    tasks = grid.tasks
    reachable = [
        r.reachable
        for r in results
        if r.reachable is not None and r.spec.task in tasks and r.spec.target is not None
    ]
    limit = min([network, *reachable])
    beyond = {c for c in grid.compressions if c > network}
    if beyond:
        grid.compressions -= beyond
        notes[f"{where} cannot be compressed beyond {network:.4g}; larger targets are left out"] = None
    if limit < max(grid.compressions, default=1.0):
        notes[f"{where}: a method cannot go beyond {limit:.4g}; its runs there stay failed"] = None
    before = set(grid.compressions)
    grid.compressions.add(1.0)
    if not grid.by_compression:
        notes[f"{where}: no method is given a compression, so that operating points are yours to add"] = None
    elif sum(1 < c <= limit for c in grid.compressions) < FEWEST_POINTS:
        grid.compressions |= {point for point in OPERATING_POINTS if point <= limit}
        grid.compressions |= set(_between({c for c in grid.compressions if c <= limit}, limit))
    elif not _collapse_is_shown(grid, evidence):
        largest = max(grid.compressions)
        following = 2 * largest if 2 * largest <= limit else _just_below(limit)
        if following > largest:
            grid.compressions.add(following)
        else:
            notes[f"{where} keeps its accuracy up to the largest compression that it allows, {limit:.4g}"] = (
                None
            )
    added = sorted(grid.compressions - before)
    if added:
        grid.added = True
        grid.reasons[f"operating points: {', '.join(f'{c:g}' for c in added)} on {where}"] = None


def _between(present: set[float], limit: float) -> Iterator[float]:
    """Further points below ``limit`` where powers of two alone are fewer than five."""
    lacking = FEWEST_POINTS - sum(c > 1 for c in present)
    if lacking > 0 and math.isfinite(limit):
        steps = math.log(_just_below(limit)) / (FEWEST_POINTS + 1)
        candidates = [round(math.exp(steps * (k + 1)), 2) for k in range(FEWEST_POINTS + 1)]
        yield from sorted((c for c in candidates if all(abs(c / p - 1) > 0.1 for p in present)), reverse=True)[
            :lacking
        ]


def _just_below(limit: float) -> float:
    """A target that a limit still allows: rounded down to three digits."""
    scale = 10.0 ** (math.floor(math.log10(limit)) - 2)
    return math.floor(limit * 0.99 / scale) * scale


def _largest_compression(grid: Grid, results: Sequence[RunResult]) -> float:
    """All parameters over those that cannot be pruned, as the finished runs of the pair show them."""
    tasks = grid.tasks
    limits = [
        r.size.parameters / max(1, r.size.parameters - sum(d.total for d in r.layers.values()))
        for r in results
        if r.spec.task in tasks and r.size and r.layers and not r.spec.is_control
    ]
    return min(limits, default=math.inf)


def _collapse_is_shown(grid: Grid, evidence: Evidence) -> bool:
    """Whether every judged method of the grid collapses, or has not yet been run at the largest target."""
    largest = Compression(ratio=max(grid.compressions))
    for task, method in evidence.curves(evidence.proposed):
        cells = (evidence.cells[task, method, amount] for amount in evidence.amounts(task, method))
        reached = evidence.tasks[task] in grid.tasks and any(c[0].spec.amount == largest for c in cells)
        if reached and evidence.collapsed(task, method) is False:
            return False
    return True


def _as_experiments(grids: Sequence[Grid]) -> Iterator[tuple[ExperimentSpec, list[Grid]]]:
    """The experiment widened as a whole where all its pairs need the same, else one experiment per pair."""
    by_name: dict[str, list[Grid]] = defaultdict(list)
    for grid in grids:
        by_name[grid.experiment.name].append(grid)
    for members in by_name.values():
        first = members[0].experiment
        whole = len(members) == len(first.dataset) * len(first.model)
        needs = {(frozenset(g.methods), frozenset(g.compressions), frozenset(g.seeds)) for g in members}
        if whole and len(needs) == 1:
            yield _widen(first, members[0]), members
        else:
            for grid in members:
                dataset, model = grid.pair
                name = f"{first.name}-{dataset}-{model}".replace("/", "-")
                restricted = {"name": name, "dataset": (dataset,), "model": (model,)}
                yield _widen(first.model_copy(update=restricted), grid), [grid]


def _widen(experiment: ExperimentSpec, grid: Grid) -> ExperimentSpec:
    return experiment.model_copy(
        update={
            "method": tuple(grid.methods),
            "compression": tuple(sorted(grid.compressions)),
            "seed": tuple(sorted(grid.seeds)),
        }
    )


def _new_pairs(
    grids: Sequence[Grid], evidence: Evidence, pairs: Sequence[Pair], notes: dict[str, None]
) -> Iterator[ExperimentSpec]:
    """Experiments for further pairs of dataset and network, as long as fewer than three count."""
    present = {grid.pair for grid in grids}
    counted = [pair for pair in present if counts(*pair)]
    if len(counted) >= FEWEST_PAIRS and any(is_large(d) for d, _ in counted):
        return
    for dataset, model in pairs:
        if (dataset, model) in present:
            continue
        if not grids:
            raise ShrinkbenchError(
                "the plan holds no runs to repeat on a further pair; sweep an experiment first"
            )
        source = grids[0]
        yield _widen(source.experiment, source).model_copy(
            update={
                "name": f"{source.experiment.name}-{dataset}-{model}".replace("/", "-"),
                "dataset": (dataset,),
                "model": (model,),
                "weights": ("pretrain",),
                "recipe": None,
                "pretrain_recipe": None,
            }
        )
    if not pairs:
        notes["fewer than three pairs of dataset and network count; name further ones with --pair"] = None
