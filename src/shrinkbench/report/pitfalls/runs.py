"""Pitfalls of the stored runs themselves: copies, one method twice, targets that were missed, failures."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from shrinkbench.report.checklist.causes import joined
from shrinkbench.report.pitfalls.finding import Pitfall, and_more
from shrinkbench.report.statistics.compare import groups, records
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.results.copies import Trainings, agreement, find_copies, find_shared_starts
from shrinkbench.results.labels import distinct_runs, label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import MethodSpec

MOST = 0.9
"""Of the runs that two methods share, the part that has to be one training for them to be one method.

Methods that differ may come to one network in some: one that lets weights return where none does.
"""
MISSED = 0.1
"""Networks compressed less by more than this share missed the compression asked for."""


def _one_training(runs: Sequence[RunResult], trainings: Trainings) -> Iterator[tuple[RunResult, RunResult]]:
    """Pairs of runs that are one training, up to rounding: equal accuracies alone do not count.

    Behind a layer of which nothing is left only the rest trains: of one seed, it does so alike for every
    method and amount that emptied one, and two such runs are no copies.
    """
    for first, other in trainings.pairs(runs):
        if first.spec.seed != other.spec.seed or not (_emptied(first) and _emptied(other)):
            yield first, other


def copied_seeds(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Runs of one cell and of different seeds that are one training, up to rounding."""
    cells: dict[tuple[str, str, str], list[RunResult]] = defaultdict(list)
    for run, label in distinct_runs(results):
        name = label.control if run.spec.is_control else label.method
        cells[label.task, name, label.amount].append(run)
    found: dict[tuple[str, str, tuple[int, ...]], list[RunResult]] = defaultdict(list)
    amounts: dict[tuple[str, str, tuple[int, ...]], list[str]] = defaultdict(list)
    shared: dict[tuple[str, str, tuple[int, ...]], set[str]] = {}
    for (task, name, amount), runs in cells.items():
        for copies in find_copies(_once_each(runs)):
            case = (task, name, tuple(run.spec.seed for run in copies))
            found[case] += copies
            amounts[case].append(amount)
            own = agreement(copies)
            shared[case] = set(own).intersection(shared.get(case, own))
    for (task, name, seeds), runs in found.items():
        at = amounts[task, name, seeds]
        same = [what for what in agreement(runs[: len(seeds)]) if what in shared[task, name, seeds]]
        what = joined(same) or "training losses and validation"
        digits = " to the last digit" if same else ", up to rounding,"
        yield Pitfall(
            kind="copied-seeds",
            title="Runs of different seeds are copies of one another",
            where=task,
            finding=(
                f"{name}: seeds {joined(seeds)} have the same {what}{digits} at "
                f"{joined(at[:3])}{and_more(len(at) - 2, 'amount') if len(at) > 3 else ''}."
            ),
            advice="Run every seed; copies count as one run, and their deviation says nothing.",
            runs=tuple(run.key for run in runs),
        )


def _once_each(runs: Iterable[RunResult]) -> list[RunResult]:
    """One run of every seed: methods may each have stored the control that they share."""
    return list({run.spec.seed: run for run in runs}.values())


def copied_runs(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """One training that stands under two keys: for two tasks, or for two networks of different size."""
    labels = {run.key: label for run, label in distinct_runs(r for r in results if not r.spec.is_control)}
    runs = [run for run in results if run.key in labels]
    found: dict[tuple[str, ...], dict[str, RunResult]] = defaultdict(dict)
    where: dict[tuple[str, ...], str] = {}
    for pair in _one_training(runs, Trainings()):
        own = [labels[run.key] for run in pair]
        if len({(x.task, run.size and run.size.parameters_kept) for x, run in zip(own, pair, strict=True)}) > 1:
            cells = sorted({(x.task, x.method, x.amount) for x in own})
            names = tuple(f"{method} at {amount} on {task}" for task, method, amount in cells)
            found[names] |= {run.key: run for run in pair}
            where[names] = cells[0][0]
    order = {run.key: number for number, run in enumerate(runs)}
    for names, copies in sorted(found.items(), key=lambda case: min(map(order.__getitem__, case[1])))[:1]:
        seeds = sorted({run.spec.seed for run in copies.values()})
        yield Pitfall(
            kind="copied-runs",
            title="One run stands in several places",
            where=where[names],
            finding=(
                f"{joined(names)} have the same training losses, up to rounding "
                f"(seed{'s' if len(seeds) > 1 else ''} {joined(seeds)}){and_more(len(found), 'case')}."
            ),
            advice="Find out which of them was run: another task or another network gives other numbers.",
            runs=tuple(dict.fromkeys(key for case in found.values() for key in case)),
        )


def shared_starts(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Seeds that start from one network, though each should have its own."""
    labels = {run.key: label.task for run, label in distinct_runs(results)}
    found: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for runs in find_shared_starts(results):
        found[labels.get(runs[0].key, ""), tuple(sorted(r.spec.seed for r in runs))] += [r.key for r in runs]
    for (task, seeds), keys in found.items():
        yield Pitfall(
            kind="one-initial-network",
            title="Seeds start from one network",
            where=task,
            finding=(
                f"The controls of seeds {joined(seeds)} read alike before training, up to rounding: they "
                "start from one network, where each seed should have its own."
            ),
            advice="Draw or pretrain a network for every seed: deviations leave out what the network adds.",
            runs=tuple(keys),
        )


def twin_methods(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """One method under two names: equal in every axis, or in most trainings where both were run.

    A training is another method's whatever the seed that it is told to be of.
    """
    cells: dict[tuple[str, str], dict[str, list[RunResult]]] = defaultdict(dict)
    definitions: dict[tuple[str, str], MethodSpec] = {}
    curves: dict[str, tuple[str, str, str]] = {}
    for run, label in distinct_runs(run for run in results if not run.spec.is_control):
        cells[label.task, label.method].setdefault(label.amount, []).append(run)
        curves[run.key] = label.task, label.method, label.amount
        definitions[label.task, label.method] = run.spec.method
    copied = _copied_cells(results, curves)
    for (task, first), (other_task, second) in itertools.combinations(sorted(cells), 2):
        if task != other_task:
            continue
        a, b = cells[task, first], cells[task, second]
        shared = sum(min(len(a[amount]), len(b[amount])) for amount in a if amount in b)
        alike = copied.get((task, first, second), 0)
        pair = definitions[task, first], definitions[task, second]
        runs = (*_cells_of(a), *_cells_of(b))
        if shared and alike >= MOST * shared:
            reason = f"agree in their training losses, up to rounding, in {alike} of {shared} runs they share"
        elif _are_one(*pair):
            reason = "are equal in structure, score, allocation, schedule and fine-tuning"
        else:
            if alike and not any(method.schedule.during for method in pair):
                yield _partly_one(task, (first, second), (alike, shared), runs)
            continue
        yield Pitfall(
            kind="twin-methods",
            title="One method stands under two names",
            where=task,
            finding=f"{first} and {second} {reason}.",
            advice="Keep one of them: a method that is counted twice tells nothing about the other's rank.",
            runs=runs,
        )


def _cells_of(amounts: Mapping[str, Sequence[RunResult]]) -> Iterator[str]:
    yield from (run.key for runs in amounts.values() for run in runs)


def _partly_one(task: str, names: tuple[str, str], counts: tuple[int, int], runs: tuple[str, ...]) -> Pitfall:
    """Methods that mask before they train come to one training by the same masks alone, or by a copy."""
    return Pitfall(
        kind="copied-runs",
        title="Runs of two methods are one training",
        where=task,
        finding=(
            f"{joined(names)} agree in their training losses, up to rounding, in {counts[0]} of {counts[1]} "
            "runs they share."
        ),
        advice="Find out whether both came to the same masks there, or one was copied.",
        runs=runs,
    )


def _copied_cells(
    results: Sequence[RunResult], curves: Mapping[str, tuple[str, str, str]]
) -> Mapping[tuple[str, str, str], int]:
    """How many runs of two methods of a task are one training at one amount, each counted once."""
    runs = [run for run in results if run.key in curves]
    told: dict[tuple[str, str, str], tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for pair in _one_training(runs, Trainings()):
        (task, method, amount), (other_task, other_method, other_amount) = own = [curves[r.key] for r in pair]
        if (task, amount) == (other_task, other_amount) and method != other_method:
            one, two = (pair[n].key for n in ((0, 1) if own[0] < own[1] else (1, 0)))
            sides = told[task, min(method, other_method), max(method, other_method)]
            sides[0].add(one)
            sides[1].add(two)
    return {methods: min(map(len, sides)) for methods, sides in told.items()}


def _are_one(first: MethodSpec, second: MethodSpec) -> bool:
    """Whether two methods differ in nothing but their name."""
    unnamed = {"base": "", "changed": ()}
    return first.name != second.name and first.model_copy(update=unnamed) == second.model_copy(update=unnamed)


def missed_targets(observations: Observations) -> Iterator[Pitfall]:
    """Networks that stayed larger than asked: they stand beside smaller ones, and look better for it."""
    rows = observations.pruned.dropna(subset=["compression_target"])
    means = rows.groupby(["task", "method", "amount", "compression_target"])["compression"].mean().reset_index()
    short = means[means["compression"] < (1 - MISSED) * means["compression_target"]]
    for (task, method), missed in groups(short, "task", "method"):
        part = rows[(rows["task"] == task) & (rows["method"] == method)]
        worst = min(records(missed), key=lambda row: row.compression / row.compression_target)
        yield Pitfall(
            kind="target-missed",
            title="A method missed the compression asked for",
            where=task,
            finding=(
                f"{method} reached compression {worst.compression:.3g} where {worst.compression_target:g} was "
                f"asked{and_more(len(missed), 'amount')}."
            ),
            advice="Compare it at the compression that it reached, not at the one asked for.",
            runs=tuple(part.loc[part["amount"].isin(missed["amount"]), "key"]),
        )


def emptied_layers(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Layers of which no weight was kept: where no shortcut leads around one, the output is a constant."""
    found: dict[tuple[str, str], dict[str, dict[str, set[int]]]] = defaultdict(lambda: defaultdict(dict))
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    pruned = (run for run in results if not (run.spec.is_control or run.spec.method.structure.one_per_layer))
    for run, label in distinct_runs(pruned):
        empty = _emptied(run)
        for name in empty:
            found[label.task, label.method][label.amount].setdefault(name, set()).add(run.spec.seed)
        keys[label.task, label.method] += [run.key] * bool(empty)
    for (task, method), amounts in found.items():
        said = []
        for amount, layers in amounts.items():
            for name, seeds in list(layers.items())[:2]:
                said.append(f"{name} at {amount} (seed{'s' * (len(seeds) > 1)} {joined(sorted(seeds))})")
        count = sum(map(len, amounts.values()))
        rest = f" and {count - len(said[:4])} more" if count > len(said[:4]) else ""
        yield Pitfall(
            kind="layer-collapse",
            title="Pruning has emptied whole layers",
            where=task,
            finding=f"{method} keeps no weight of {', '.join(said[:4])}{rest}.",
            advice=(
                "Where no shortcut leads around such a layer, the output no longer depends on the input, and "
                "no training mends it: compare methods at amounts that leave every layer something."
            ),
            runs=tuple(keys[task, method]),
        )


def _emptied(run: RunResult) -> list[str]:
    """The largest tensors of layers, which are their weights where biases are pruned too, that keep nothing."""
    largest: dict[str, int] = defaultdict(int)
    for name, layer in run.layers.items():
        path = name.rpartition(".")[0]
        largest[path] = max(largest[path], layer.total)
    return [
        name
        for name, layer in run.layers.items()
        if layer.total > layer.kept == 0 and layer.total == largest[name.rpartition(".")[0]]
    ]


def failed_runs(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Runs that failed: what is left of their method is not all of it."""
    totals: Counter[tuple[str, str, str]] = Counter()
    failed: dict[tuple[str, str], dict[str, list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    labels = label_runs([run.spec for run in results])
    for run, label in zip(results, labels, strict=True):
        name = label.control if run.spec.is_control else label.method
        totals[label.task, name, label.amount] += 1
        if run.status == "failed":
            failed[label.task, name][label.amount].append(run)
    for (task, name), by_amount in failed.items():
        runs = [run for group in by_amount.values() for run in group]
        counts = [
            f"{len(group)} of {totals[task, name, amount]} runs at {amount}"
            for amount, group in sorted(by_amount.items(), key=lambda item: item[1][0].spec.target or 0.0)
        ]
        seeds = sorted({run.spec.seed for run in runs})
        reason = next(iter((runs[0].error or "").splitlines()), "").strip()[:120] or "no reason recorded"
        yield Pitfall(
            kind="failed-runs",
            title="Runs of a method failed",
            where=task,
            finding=(
                f"{name} failed in {joined(counts)} (seed{'s' if len(seeds) > 1 else ''} {joined(seeds)}): "
                f"{reason.rstrip('.')}."
            ),
            advice="Count failures against their method: its mean over the other runs is not the whole of it.",
            runs=tuple(run.key for run in runs),
        )
