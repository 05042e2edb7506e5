"""Pruned networks beside the same networks trained from scratch, in the layout of Liu et al. 2019.

One row per pruned network, one column per way to its weights: fine-tuned, rewound, or from scratch for the
same epochs (Scratch-E) or the same computation (Scratch-B).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shrinkbench.report.scratch_conclusion import MARGIN, Network, beside_paper, conclude
from shrinkbench.report.statistics.metrics import Metric, metric_of
from shrinkbench.report.tables import Cell, Table, achieved_text, amount_text
from shrinkbench.results.apart import digest_once
from shrinkbench.results.conflicts import find_differing_controls
from shrinkbench.results.labels import distinct_runs, label_runs, recipe_labels
from shrinkbench.results.record import RunResult
from shrinkbench.spec import CONTINUE, FinetuningSpec, PublishedWidths, Recipe, RunSpec, TaskSpec
from shrinkbench.spec.training_cost import total

STUBS = ("task", "pruned network")

_Way = tuple[int, str]
"""A way to the weights: its place among the columns, and what it is called."""
_Training = tuple[Recipe, Recipe | None, FinetuningSpec]
"""The recipe of the last training, and of the one that found the masks; how the last one starts."""


@dataclass(frozen=True)
class _Row:
    """A pruned network by how a reader knows it: its task, and what pruned it how far."""

    task: str
    network: str
    compression: float


@dataclass(frozen=True)
class _Large:
    """The unpruned network: its headline metric by seed, and the multiply-adds of its training (0: unknown)."""

    by_seed: Mapping[int, float] = field(default_factory=dict)
    multiply_adds: float = 0.0


_Cells = Mapping[RunSpec, Mapping[str, Sequence[RunResult]]]
"""Runs by pruned network (see :func:`_network`) and column."""


def scratch_tables(results: Iterable[RunResult], *, margin: float = MARGIN) -> list[Table]:
    """Accuracy by strategy, what it shows, the paper's numbers, and training cost; nothing without scratch.

    ``margin`` is in points, or in percent of the unpruned network's value where the metric is no share:
    training from scratch matches fine-tuning where the difference lies within it.
    """
    results = [r for r, _ in distinct_runs(r for r in results if r.status == "done")]
    pruned = [r for r in results if not r.spec.is_control]
    if not any(r.spec.method.finetuning.weights in ("scratch", "reinitialised") for r in pruned):
        return []
    alike = _alike(pruned)
    columns = _columns([runs[0] for runs in alike])
    cells: dict[RunSpec, dict[str, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    for runs in alike:
        spec = runs[0].spec
        cells[_network(spec)][columns[_way(spec), _training(spec)]] += runs
    rows = _rows(cells)
    ordered = dict(sorted(cells.items(), key=lambda item: _order(rows[item[0]])))
    unpruned = _find_unpruned(results)
    ways = {columns[key]: key[0][1] for key in sorted(columns, key=lambda k: (k[0], columns[k]))}
    networks = [
        Network(rows[n].task, rows[n].network, n, found, unpruned.get(n.task, _Large()).by_seed)
        for n, found in ordered.items()
    ]
    return [
        _accuracy(ordered, rows, [*ways], unpruned),
        *conclude(networks, ways, margin=margin),
        *beside_paper(networks, ways),
        *_cost(ordered, rows, [*ways], unpruned),
    ]


def _alike(results: Iterable[RunResult]) -> list[list[RunResult]]:
    """Runs by what decides their row and column, as far as it is the same object: few of them are compared."""
    found: dict[tuple[object, ...], list[RunResult]] = defaultdict(list)
    for result in results:
        spec = result.spec
        values = (spec.task, spec.method, spec.amount, spec.recipe, spec.search)
        found[*map(id, values), spec.constraints, *spec.also_prunable.values()].append(result)
    return list(found.values())


def _network(spec: RunSpec) -> RunSpec:
    """What all trainings of one pruned network share: the run without seed, training and what was measured."""
    return spec.model_copy(
        update={
            "method": spec.method.finetuned_by(CONTINUE),
            "seed": 0,
            "recipe": _ANY,
            "search": None,
            "extra": (),
            "migrated_from": None,
        }
    )


_ANY = Recipe(name="any", reference="", optimizer="sgd", learning_rate=1, batch_size=1, epochs=0)


def _rows(cells: _Cells) -> dict[RunSpec, _Row]:
    """Every pruned network as a reader knows it; widths that were published need no amount."""
    networks = list(cells)
    rows = {}
    for network, label in zip(networks, label_runs(networks), strict=True):
        runs = [r for found in cells[network].values() for r in found]
        reached = statistics.mean(r.size.compression for r in runs if r.size)
        amount = f" {amount_text(label.amount, network.target)}{achieved_text(network.target, reached)}"
        if isinstance(network.amount, PublishedWidths):
            amount = ""
        rows[network] = _Row(label.task, f"{label.method}{amount}", reached)
    return rows


def _order(row: _Row) -> tuple[str, float, str]:
    return row.task, row.compression, row.network


def _training(spec: RunSpec) -> _Training:
    return spec.recipe, spec.search, spec.method.finetuning


def _way(spec: RunSpec) -> _Way:
    """How the weights came about, in the words of the paper and in its order; scratch last."""
    mode = spec.method.finetuning
    untrained = spec.method.start == "initialisation" and spec.search is None
    if mode.recipe == "none":
        return 0, "Pruned"
    if mode.weights == "kept" and mode.recipe == "finetuning":
        # Pruned before or while it was trained, and not trained any more afterwards.
        return (0, "Pruned") if untrained else (1, "Fine-tuned")
    if mode.weights == "rewound" and mode.epoch == 0:
        return 2, "Winning ticket"
    if mode.weights == "reinitialised":
        return 3, "Random weights"
    if mode.weights == "scratch":
        return (5, "Scratch-E") if mode.equal == "epochs" else (6, "Scratch-B")
    return 4, mode.name


def _columns(results: Sequence[RunResult]) -> dict[tuple[_Way, _Training], str]:
    """Names of columns: the way, and the recipe where some network went it by several.

    Modes of training that a name and recipes do not tell apart are told apart by themselves.
    """
    found: dict[tuple[RunSpec, _Way], set[_Training]] = defaultdict(set)
    for spec in (r.spec for r in results):
        found[_network(spec), _way(spec)].add(_training(spec))
    recipes_of = {place: {training[:2] for training in trainings} for place, trainings in found.items()}
    several = {way for (_, way), recipes in recipes_of.items() if len(recipes) > 1}
    ambiguous = {way for (_, way), t in found.items() if len({training[:2] for training in t}) < len(t)}
    keys = dict.fromkeys((_way(r.spec), _training(r.spec)) for r in results)
    labels = recipe_labels(recipe for _, (*pair, _) in keys for recipe in pair if recipe is not None)
    searches: dict[_Way, set[Recipe | None]] = defaultdict(set)
    for way, (_, search, _) in keys:
        searches[way].add(search)
    names = {}
    for way, (recipe, search, mode) in keys:
        parts = [labels[recipe]] if way in several else []
        if parts and len(searches[way]) > 1 and search is not None:
            parts.append(f"found by {labels[search]}")
        if way in ambiguous:
            parts.append(f"{mode.name} {digest_once(mode)[:6]}")
        names[way, (recipe, search, mode)] = f"{way[1]} ({', '.join(parts)})" if parts else way[1]
    return names


def _find_unpruned(results: Sequence[RunResult]) -> dict[TaskSpec, _Large]:
    """The large network of every task, once per seed.

    That is the trained network itself, before any fine-tuning; where no control started from it, one control
    that was trained anew, of those the one with most seeds. What its training cost is known from either.
    """
    costs: dict[TaskSpec, float] = defaultdict(float)
    found: dict[TaskSpec, dict[tuple[int, str], dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    doubted = {first.spec.control.key for first, _ in find_differing_controls(results)}
    for result in results:
        spec, spent = result.spec, result.cost
        if doubted and spec.is_control and spec.control.key in doubted:
            continue
        kept = spec.method.finetuning.weights == "kept"
        itself = kept and (spec.method.start == "trained" or spec.search is not None)
        quality = result.before if itself else result.after
        if not spec.is_control or quality is None:
            continue
        preference = 0 if itself else 2 if spec.method.from_scratch else 1
        cost = None if spent is None else spent.pretraining if itself else spent.retraining
        costs[spec.task] = max(costs[spec.task], cost.multiply_adds if cost else 0.0)
        own = "" if itself else digest_once(spec.control.model_copy(update={"seed": 0, "extra": ()}))
        found[spec.task][preference, own].setdefault(
            spec.seed, quality.metrics.get(spec.task.objective.headline, math.nan)
        )
    large = {}
    for task, kinds in found.items():
        chosen = min(kinds, key=lambda kind: (kind[0], -len(kinds[kind]), kind[1]))
        large[task] = _Large(kinds[chosen], costs[task])
    return large


def _accuracy(
    cells: _Cells, rows: Mapping[RunSpec, _Row], columns: Sequence[str], unpruned: Mapping[TaskSpec, _Large]
) -> Table:
    lines = []
    for network, found in cells.items():
        objective = network.task.objective
        metric = metric_of(objective.metric(objective.headline))
        values = {name: [v for r in runs if (v := r.headline) is not None] for name, runs in found.items()}
        has = {name: {r.spec.seed for r in runs if r.headline is not None} for name, runs in found.items()}
        every = set().union(*has.values())
        whole = {name for name, seeds in has.items() if seeds and seeds == every}
        means = [statistics.mean(values[name]) for name in whole]
        best = (max if metric.higher_is_better else min)(means, default=math.nan)
        large = [*unpruned.get(network.task, _Large()).by_seed.values()]
        measured = (
            Cell(
                _mean(values.get(c, []), metric),
                best=c in whole and statistics.mean(values[c]) == best,
            )
            for c in columns
        )
        lines.append((*_stubs(rows[network]), Cell(_mean(large, metric)), *measured))
    seeds = sorted({len({r.spec.seed for r in v}) for found in cells.values() for v in found.values()})
    over = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
    return Table(
        name=f"scratch-{_stem(cells)}",
        caption=f"Fine-tuned and trained from scratch: {_measured(cells)}, mean ± sample standard deviation "
        f"over {over}. Bold: the best of those with all seeds of the row. Scratch-E: the same epochs as the "
        "large network; Scratch-B: the same computation.",
        columns=(*STUBS, "Unpruned", *columns),
        rows=tuple(lines),
        stubs=len(STUBS),
    )


def _measured(cells: _Cells) -> str:
    """The metrics that tasks lead with, and the unit in which they are shown."""
    return " and ".join(f"{metric.short}{metric.in_unit}" for metric in _metrics(cells))


def _metrics(cells: _Cells) -> list[Metric]:
    """The metrics that tasks lead with, in order of names."""
    leading = {o.metric(o.headline) for o in (network.task.objective for network in cells)}
    return [metric_of(metric) for metric in sorted(leading, key=lambda m: (m.name, m.direction))]


def _stem(cells: _Cells) -> str:
    """What the table is called after: the metric, or that tasks have several."""
    found = {metric.column for metric in _metrics(cells)}
    return found.pop() if len(found) == 1 else "metrics"


def _cost(
    cells: _Cells, rows: Mapping[RunSpec, _Row], columns: Sequence[str], unpruned: Mapping[TaskSpec, _Large]
) -> list[Table]:
    """Training in multiply-adds, relative to training the large network; epochs of the last training."""
    lines = []
    for network, found in cells.items():
        large = unpruned.get(network.task, _Large()).multiply_adds
        if large > 0:
            texts = (_spent(found.get(c, []), large) for c in columns)
            lines.append((*_stubs(rows[network]), *map(Cell, texts)))
    if not lines:
        return []
    return [
        Table(
            name="scratch-cost",
            caption="What the networks above cost: multiply-adds of all training, relative to training the "
            "large network, and epochs of the last training. From scratch, that training is "
            "all that counts: finding the architecture is free.",
            columns=(*STUBS, *columns),
            rows=tuple(lines),
            stubs=len(STUBS),
        )
    ]


def _spent(results: Sequence[RunResult], large: float) -> str:
    """From scratch an architecture is trained as if it were given: finding it is not counted (Liu et al.)."""
    spent = [
        (r.cost.retraining if r.spec.method.from_scratch else total(r.cost)).multiply_adds
        for r in results
        if r.cost
    ]
    if not spent:
        return "–"
    epochs = statistics.mean(r.cost.retraining.epochs for r in results if r.cost)
    return f"{statistics.mean(spent) / large:.2f} ({epochs:.0f} epochs)"


def _stubs(row: _Row) -> tuple[Cell, ...]:
    return Cell(row.task), Cell(row.network)


def _mean(values: Sequence[float], metric: Metric) -> str:
    if not values:
        return "–"
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return metric.plus_minus(statistics.mean(values), spread)
