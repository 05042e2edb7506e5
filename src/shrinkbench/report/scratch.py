"""Pruned networks beside the same networks trained from scratch, in the layout of Liu et al. 2019.

One row per pruned network, one column per way to its weights: fine-tuned, rewound, or from scratch for the
same epochs (Scratch-E) or the same computation (Scratch-B).
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from shrinkbench.report.tables import Cell, Table, plus_minus
from shrinkbench.results.record import RunResult
from shrinkbench.spec import RunSpec
from shrinkbench.spec.training_cost import total

STRATEGIES = {
    "none": "Pruned",
    "continue": "Fine-tuned",
    "rewind-weights-0": "Winning ticket",
    "reinitialise": "Random weights",
    "scratch-e": "Scratch-E",
    "scratch-b": "Scratch-B",
}
"""Columns by fine-tuning mode, in order; other modes stand between under their own names."""


STUBS = ("dataset", "network", "pruned network")


@dataclass(frozen=True, order=True)
class _Row:
    """A pruned network: where it comes from, and what pruned it how far."""

    dataset: str
    model: str
    trained_by: str
    method: str
    compression: float

    @property
    def pruned(self) -> str:
        """Its name; published widths have one, others are told by method and compression."""
        return self.method if ":" in self.method else f"{self.method} {self.compression:g}×"


@dataclass(frozen=True)
class _Large:
    """The unpruned network: top-1 by seed, and the multiply-adds of its training (0: not known)."""

    top1: tuple[float, ...] = ()
    multiply_adds: float = 0.0


def scratch_tables(results: Iterable[RunResult]) -> list[Table]:
    """Accuracy and training cost by strategy; nothing where no run trained from scratch."""
    results = [r for r in results if r.status == "done" and r.after is not None]
    anew = [r.spec for r in results if r.spec.method.from_scratch or r.spec.method.finetuning == "reinitialise"]
    if not any(spec.compression > 1 for spec in anew):
        return []
    cells: dict[_Row, dict[str, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    several = _with_several_recipes(results)
    for result in results:
        if result.spec.compression > 1:
            cells[_row(result.spec)][_strategy(result.spec, several)].append(result)
    unpruned = _find_unpruned(results)
    columns = sorted({name for found in cells.values() for name in found}, key=_place)
    return [_accuracy(cells, columns, unpruned), *_cost(cells, columns, unpruned)]


def _row(spec: RunSpec) -> _Row:
    method = spec.method.name_without_finetuning
    return _Row(spec.data.name, spec.model, _training(spec), method, spec.compression)


def _training(spec: RunSpec) -> str:
    """How the large network was trained."""
    recipe = spec.weights.recipe
    if recipe is None:
        return spec.weights.name
    return f"{recipe.name}, {recipe.epochs} epochs at {recipe.learning_rate:g}"


def _with_several_recipes(results: Sequence[RunResult]) -> frozenset[str]:
    """Fine-tuning modes that a pruned network went through by more than one recipe."""
    found: dict[tuple[_Row, str], set[str]] = defaultdict(set)
    for spec in (r.spec for r in results):
        found[(_row(spec), spec.method.finetuning)].add(spec.recipe.name)
    return frozenset(mode for (_, mode), recipes in found.items() if len(recipes) > 1)


def _strategy(spec: RunSpec, several: frozenset[str]) -> str:
    mode = spec.method.finetuning
    if mode == "continue" and spec.method.start == "initialisation" and spec.search is None:
        mode = "none"  # pruned before or while it was trained, and not trained any more afterwards
    name = STRATEGIES.get(mode, mode)
    return f"{name} ({spec.recipe.name})" if spec.method.finetuning in several else name


def _place(column: str) -> tuple[int, int, str]:
    """Scratch last, the rest in the order of ``STRATEGIES``, then by recipe, shorter first."""
    names = list(STRATEGIES.values())
    name = column.partition(" (")[0]
    place = names.index(name) if name in names else names.index("Scratch-E")
    return place, len(column), column


def _find_unpruned(results: Sequence[RunResult]) -> dict[tuple[str, str, str], _Large]:
    """The large network by dataset, network and training, once per seed.

    That is the trained network itself, before any fine-tuning; where no control started from it, the control
    that was trained anew. What its training cost is known from either.
    """
    costs: dict[tuple[str, str, str], float] = defaultdict(float)
    found: dict[tuple[str, str, str], dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for result in results:
        spec, spent = result.spec, result.budget
        if spec.compression > 1 or result.after is None or result.before is None:
            continue
        kept = spec.method.finetuning in ("continue", "none") or "learning-rate" in spec.method.finetuning
        itself = kept and (spec.method.start == "trained" or spec.search is not None)
        preference = 0 if itself else 2 if spec.method.from_scratch else 1
        top1 = (result.before if itself else result.after).top1
        cost = None if spent is None else spent.pretraining if itself else spent.retraining
        key = (spec.data.name, spec.model, _training(spec))
        costs[key] = max(costs[key], cost.multiply_adds if cost else 0.0)
        found[key][preference].setdefault(spec.seed, top1)
    return {key: _Large(tuple(kinds[min(kinds)].values()), costs[key]) for key, kinds in found.items()}


def _accuracy(
    cells: Mapping[_Row, Mapping[str, Sequence[RunResult]]],
    columns: Sequence[str],
    unpruned: Mapping[tuple[str, str, str], _Large],
) -> Table:
    rows = []
    for row in sorted(cells):
        values = {name: [r.after.top1 for r in found if r.after] for name, found in cells[row].items()}
        best = max(map(statistics.mean, values.values()))
        large = unpruned.get((row.dataset, row.model, row.trained_by), _Large()).top1
        measured = (
            Cell(_mean(values.get(c, [])), best=c in values and statistics.mean(values[c]) == best)
            for c in columns
        )
        rows.append((*_stubs(row, cells), Cell(_mean(large)), *measured))
    seeds = sorted({len({r.spec.seed for r in v}) for found in cells.values() for v in found.values()})
    over = f"{seeds[0]} to {seeds[-1]} seeds" if len(seeds) > 1 else f"{seeds[0]} seed{'s' * (seeds[0] > 1)}"
    return Table(
        name="scratch-top1",
        caption="Fine-tuned and trained from scratch: top-1 in %, mean ± sample standard deviation over "
        f"{over}. Scratch-E: the same epochs as the large network; Scratch-B: the same computation.",
        columns=(*STUBS, "Unpruned", *columns),
        rows=tuple(rows),
        stubs=len(STUBS),
    )


def _cost(
    cells: Mapping[_Row, Mapping[str, Sequence[RunResult]]],
    columns: Sequence[str],
    unpruned: Mapping[tuple[str, str, str], _Large],
) -> list[Table]:
    """Training in multiply-adds, relative to training the large network; epochs of the last training."""
    rows = []
    for row in sorted(cells):
        large = unpruned.get((row.dataset, row.model, row.trained_by), _Large()).multiply_adds
        if large > 0:
            texts = (_spent(cells[row].get(c, []), large) for c in columns)
            rows.append((*_stubs(row, cells), *map(Cell, texts)))
    if not rows:
        return []
    return [
        Table(
            name="scratch-cost",
            caption="What the networks above cost: multiply-adds of all training, relative to training the "
            "large network, and epochs of the last training. From scratch, that training is "
            "all that counts: finding the architecture is free.",
            columns=(*STUBS, *columns),
            rows=tuple(rows),
            stubs=len(STUBS),
        )
    ]


def _spent(results: Sequence[RunResult], large: float) -> str:
    """From scratch an architecture is trained as if it were given: finding it is not counted (Liu et al.)."""
    spent = [
        (r.budget.retraining if r.spec.method.from_scratch else total(r.budget)).multiply_adds
        for r in results
        if r.budget
    ]
    if not spent:
        return "–"
    epochs = statistics.mean(r.budget.retraining.epochs for r in results if r.budget)
    return f"{statistics.mean(spent) / large:.2f} ({epochs:.0f} epochs)"


def _stubs(row: _Row, rows: Iterable[_Row]) -> tuple[Cell, ...]:
    """Dataset, network and pruned network; how the network was trained, where there are several ways."""
    ways = {r.trained_by for r in rows if (r.dataset, r.model) == (row.dataset, row.model)}
    network = f"{row.model} ({row.trained_by})" if len(ways) > 1 else row.model
    return Cell(row.dataset), Cell(network), Cell(row.pruned)


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = statistics.stdev(values) if len(values) > 1 else float("nan")
    return plus_minus(statistics.mean(values), spread, percent=True)
