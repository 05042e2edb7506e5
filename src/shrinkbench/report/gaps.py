"""The runs that a set of results lacks to satisfy the checklist, as grids that a sweep can run."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.checklist.evidence import (
    FEWEST_PAIRS,
    FEWEST_POINTS,
    FEWEST_SEEDS,
    OPERATING_POINTS,
    Evidence,
    gather,
    is_global,
    is_magnitude,
    is_plain,
    is_random,
    is_uniform,
)
from shrinkbench.report.checklist.recommendation import counts, is_large
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import Plan
from shrinkbench.spec import ExperimentSpec, MethodSpec, RunSpec

Available = Callable[[str], bool]
Resolve = Callable[[ExperimentSpec], Iterable[RunSpec]]
Pair = tuple[str, str]
Context = tuple[object, ...]
"""What runs of one comparison share: data, network, weights, recipe, and what else is pruned."""

RANDOM, UNIFORM_RANDOM = "random", "layerwise_random"
GLOBAL_MAGNITUDE, UNIFORM_MAGNITUDE = "global_magnitude", "layerwise_magnitude"


def same_proportions_name(score: str, method: str) -> str:
    """Name under which the library offers ``score`` pruning with the layerwise proportions of ``method``."""
    return f"{score}@{method}"


@dataclass(frozen=True)
class Repair:
    """What is missing: grids to sweep in order, how many runs that is, and what no run can mend.

    ``incomplete`` are keys of finished runs without some metric; they must be run again. ``reasons`` says,
    line by line, what the runs are for.
    """

    experiments: tuple[ExperimentSpec, ...]
    runs: int
    reasons: tuple[str, ...]
    incomplete: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Grid:
    """Everything that an experiment needs on one pair of dataset and network: a full product.

    ``specs`` are the runs planned so far, of later experiments too that repeat this one's comparison.
    ``compared`` are all planned runs of the pair that they are compared with. ``where`` names the place.
    """

    experiment: ExperimentSpec
    pair: Pair
    where: str
    specs: list[RunSpec]
    compared: list[RunSpec]
    methods: dict[str, None]
    compressions: set[float]
    seeds: set[int]
    reasons: dict[str, None] = field(default_factory=dict)

    @property
    def is_planned(self) -> bool:
        """Whether every run of the product is planned already."""
        planned = {(s.method.name, s.compression, s.seed) for s in self.specs}
        return planned.issuperset(itertools.product(self.methods, self.compressions, self.seeds))


def plan_repair(
    plan: Plan,
    results: Sequence[RunResult],
    *,
    resolve: Resolve,
    proposed: Sequence[str] = (),
    pairs: Sequence[Pair] = (),
    available: Available = lambda name: True,
) -> Repair:
    """Plan exactly the runs that turn violated lines of the checklist to satisfied.

    Per experiment and pair of dataset and network these are all methods with their random and magnitude
    controls, at all compressions, for all seeds. ``resolve`` gives the runs of a grid; ``pairs`` are added
    where fewer than three count; ``available`` tells which methods the library has.
    """
    evidence = gather(results, proposed=proposed)
    reasons: dict[str, None] = {}
    notes: dict[str, None] = {}
    grids = _plan_grids(plan)
    for grid in grids:
        _add_seeds(grid)
        _add_controls(grid, evidence, notes, available)
        _add_points(grid, evidence, notes)
    done = {r.key for r in results if r.status == "done" and r.size and r.after and r.before}
    experiments, missing = [], set[str]()
    for experiment, members in _as_experiments(grids):
        planned = all(grid.is_planned for grid in members)
        specs = [s for g in members for s in g.specs if s.compression in g.compressions]
        lacking = {spec.key for spec in (specs if planned else resolve(experiment))} - done - missing
        if lacking:
            experiments.append(experiment)
            missing |= lacking
            reasons |= {reason: None for grid in members for reason in grid.reasons}
    for experiment in _new_pairs(grids, evidence, pairs, notes):
        experiments.append(experiment)
        reasons[f"pairs: {experiment.dataset[0]} / {experiment.model[0]}"] = None
        missing |= {spec.key for spec in resolve(experiment)} - done
    unfinished = sum(1 for r in plan.runs if r.key not in {x.key for x in results if x.status == "done"})
    if unfinished:
        reasons[f"planned runs that are not finished: {unfinished}"] = None
    incomplete = tuple(r.key for r in results if r.status == "done" and r.key not in done)
    if incomplete:
        reasons[f"second metric: {len(incomplete)} finished runs lack some metric"] = None
    return Repair(tuple(experiments), len(missing), tuple(reasons), incomplete, tuple(notes))


def _plan_grids(plan: Plan) -> list[_Grid]:
    """What is planned so far, by experiment and pair; one that repeats an earlier comparison counts to it."""
    by_pair: dict[Pair, dict[str, list[RunSpec]]] = defaultdict(lambda: defaultdict(list))
    for run in plan.runs:
        by_pair[run.spec.data.name, run.spec.model][run.experiment].append(run.spec)
    experiments = {e.name: e for e in plan.experiments}
    grids = []
    for pair, members in by_pair.items():
        separate: dict[str, list[RunSpec]] = {}
        for name, specs in members.items():
            contexts = _contexts(specs)
            owner = next((n for n, others in separate.items() if contexts <= _contexts(others)), name)
            separate[owner] = [*separate.get(owner, ()), *specs]
        for name, specs in separate.items():
            contexts = _contexts(specs)
            grids.append(
                _Grid(
                    experiment=experiments[name],
                    pair=pair,
                    where=" / ".join(pair) + (f" in {name}" if len(separate) > 1 else ""),
                    specs=specs,
                    compared=[s for others in members.values() for s in others if _context(s) in contexts],
                    methods=dict.fromkeys(s.method.name for s in specs),
                    compressions={s.compression for s in specs},
                    seeds={s.seed for s in specs},
                )
            )
    return grids


def _context(spec: RunSpec) -> Context:
    pruned = (spec.prune_classifier, spec.prune_biases)
    return (spec.data, spec.model, spec.weights, spec.recipe, *pruned, spec.extra)


def _contexts(specs: Iterable[RunSpec]) -> set[Context]:
    return {_context(spec) for spec in specs}


def _add_seeds(grid: _Grid) -> None:
    """Three seeds, and the seeds of any method for every other."""
    fresh = (seed for seed in itertools.count() if seed not in grid.seeds)
    added = [next(fresh) for _ in range(FEWEST_SEEDS - len(grid.seeds))]
    for seed in added:
        grid.reasons[f"seeds: {seed} on {grid.where}"] = None
    for name in grid.methods:
        absent = grid.seeds - {s.seed for s in grid.specs if s.method.name == name}
        if absent:
            seeds = ", ".join(map(str, sorted(absent)))
            grid.reasons[f"seeds: {seeds} of {name} on {grid.where}"] = None
    grid.seeds.update(added)


def _add_controls(grid: _Grid, evidence: Evidence, notes: dict[str, None], available: Available) -> None:
    """Random and magnitude pruning: global, uniform, and with each proposed method's own proportions."""
    definitions = {s.method.name: s.method for s in grid.compared}
    wanted = [
        (name, "global and uniform baselines")
        for name, role in _ROLES.items()
        if not any(role(method) and is_plain(method) for method in definitions.values())
    ]
    judged = [n for n in definitions if n in evidence.proposed] or [
        n for n, m in definitions.items() if not is_random(m)
    ]
    for name in judged:
        wanted += [
            (same_proportions_name(score, name), f"{score} with the proportions of {name}")
            for score in ("random", "magnitude")
            if not _has_own_control(grid, evidence, definitions[name], score)
        ]
    for name, why in wanted:
        if name in definitions:
            continue
        if available(name):
            grid.methods[name] = None
            grid.reasons[f"controls: {name} ({why})"] = None
        elif name != UNIFORM_RANDOM:
            notes[f"the library has no method '{name}' ({why}); that line stays as it is"] = None


_ROLES: dict[str, Callable[[MethodSpec], bool]] = {
    RANDOM: lambda m: is_random(m) and is_global(m),
    UNIFORM_RANDOM: lambda m: is_random(m) and (is_uniform(m) or m.allocation == "independent"),
    GLOBAL_MAGNITUDE: lambda m: is_magnitude(m) and is_global(m),
    UNIFORM_MAGNITUDE: lambda m: is_magnitude(m) and is_uniform(m),
}


def _has_own_control(grid: _Grid, evidence: Evidence, method: MethodSpec, score: str) -> bool:
    """Whether the results already show ``score`` pruning with the proportions of ``method``."""
    if score == "magnitude" and is_magnitude(method):
        return True
    tasks = [task for task, _ in evidence.curves([method.name]) if evidence.places[task] == grid.pair]
    found = [evidence.same_proportions(task, method.name, score) for task in tasks]
    return bool(found) and all(all(by_target.values()) for by_target in found)


def _add_points(grid: _Grid, evidence: Evidence, notes: dict[str, None]) -> None:
    """The control, five operating points, and a ratio at which accuracy collapses."""
    where, limit = grid.where, _largest_compression(grid, evidence)
    out_of_reach = {c for c in grid.compressions if c > limit}
    if out_of_reach:
        grid.compressions -= out_of_reach
        notes[f"{where} cannot be compressed beyond {limit:.4g}; larger targets are left out"] = None
    before = set(grid.compressions)
    grid.compressions.add(1.0)
    if sum(c > 1 for c in grid.compressions) < FEWEST_POINTS:
        grid.compressions |= {point for point in OPERATING_POINTS if point <= limit}
        grid.compressions |= set(_between(grid.compressions, limit))
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


def _largest_compression(grid: _Grid, evidence: Evidence) -> float:
    """All parameters over those that cannot be pruned, as the finished runs of the pair show them."""
    limits = [
        r.size.parameters / max(1, r.size.parameters - sum(d.total for d in r.layers.values()))
        for r in evidence.results
        if (r.spec.data.name, r.spec.model) == grid.pair and r.size and r.layers and r.spec.compression > 1
    ]
    return min(limits, default=math.inf)


def _collapse_is_shown(grid: _Grid, evidence: Evidence) -> bool:
    """Whether every proposed method of the pair collapses, or has not yet been run at the largest target."""
    largest = max(grid.compressions)
    for task, method in evidence.curves(evidence.proposed):
        reached = evidence.places[task] == grid.pair and largest in evidence.targets(task, method)
        if reached and evidence.collapsed(task, method) is False:
            return False
    return True


def _as_experiments(grids: Sequence[_Grid]) -> Iterator[tuple[ExperimentSpec, list[_Grid]]]:
    """The experiment widened as a whole where all its pairs need the same, else one experiment per pair."""
    by_name: dict[str, list[_Grid]] = defaultdict(list)
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


def _widen(experiment: ExperimentSpec, grid: _Grid) -> ExperimentSpec:
    return experiment.model_copy(
        update={
            "method": tuple(grid.methods),
            "compression": tuple(sorted(grid.compressions)),
            "seed": tuple(sorted(grid.seeds)),
        }
    )


def _new_pairs(
    grids: Sequence[_Grid], evidence: Evidence, pairs: Sequence[Pair], notes: dict[str, None]
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
