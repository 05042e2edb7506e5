"""Pitfalls of the stored runs themselves: copies, one method twice, targets that were missed, failures."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from shrinkbench.report.checklist.causes import joined
from shrinkbench.report.pitfalls.finding import Pitfall, and_more
from shrinkbench.report.statistics.compare import groups, records
from shrinkbench.report.statistics.observations import Observations
from shrinkbench.results.copies import agreement, find_copies, find_shared_starts, records_of
from shrinkbench.results.labels import RunLabel, distinct_runs, label_runs
from shrinkbench.results.record import RunResult
from shrinkbench.spec import MethodSpec

MISSED = 0.1
"""Networks compressed less by more than this share missed the compression asked for."""


def _training(run: RunResult) -> Hashable:
    """What a run wrote down while it was trained, nothing where that tells no training from another.

    Two trainings agree in a loss to its last digit only where they are one: equal accuracies do not count.
    """
    return records_of(run).get("training losses")


def copied_seeds(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """Runs of one cell and of different seeds of which a record of training is equal to the last digit."""
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
        what = joined(same) or "record of training"
        yield Pitfall(
            kind="copied-seeds",
            title="Runs of different seeds are copies of one another",
            where=task,
            finding=(
                f"{name}: seeds {joined(seeds)} have the same {what} to the last digit at "
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
    alike: dict[Hashable, list[tuple[RunResult, RunLabel]]] = defaultdict(list)
    for run, label in distinct_runs(run for run in results if not run.spec.is_control):
        training = _training(run)
        if training is not None:
            alike[training].append((run, label))
    found: dict[tuple[str, ...], list[RunResult]] = defaultdict(list)
    where: dict[tuple[str, ...], str] = {}
    for members in alike.values():
        cells = {(x.task, x.method, x.amount): run.size and run.size.parameters_kept for run, x in members}
        if len({(task, kept) for (task, _, _), kept in cells.items()}) > 1:
            names = tuple(f"{method} at {amount} on {task}" for task, method, amount in sorted(cells))
            found[names] += [run for run, _ in members]
            where[names] = min(cells)[0]
    for names, runs in itertools.islice(found.items(), 1):
        more = and_more(len(names) - 2, "cell") if len(names) > 3 else ""
        seeds = sorted({run.spec.seed for run in runs})
        yield Pitfall(
            kind="copied-runs",
            title="One run stands in several places",
            where=where[names],
            finding=(
                f"{joined(names[:3])}{more} have the same training losses "
                f"to the last digit (seed{'s' if len(seeds) > 1 else ''} {joined(seeds)})"
                f"{and_more(len(found), 'case')}."
            ),
            advice="Find out which of them was run: another task or another network gives other numbers.",
            runs=tuple(dict.fromkeys(run.key for case in found.values() for run in case)),
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
                f"The controls of seeds {joined(seeds)} read alike before training, to the last digit: they "
                "start from one network, where each seed should have its own."
            ),
            advice="Draw or pretrain a network for every seed: deviations leave out what the network adds.",
            runs=tuple(keys),
        )


def twin_methods(results: Sequence[RunResult]) -> Iterator[Pitfall]:
    """One method under two names: equal in every axis, or in every number where both were run."""
    contents: dict[tuple[str, str], dict[tuple[str, int], Hashable]] = defaultdict(dict)
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    definitions: dict[str, MethodSpec] = {}
    for run, label in distinct_runs(run for run in results if not run.spec.is_control):
        contents[label.task, label.method][label.amount, run.spec.seed] = _training(run)
        keys[label.task, label.method].append(run.key)
        definitions[label.method] = run.spec.method
    for (task, first), (other_task, second) in itertools.combinations(sorted(contents), 2):
        if task != other_task:
            continue
        a, b = contents[task, first], contents[task, second]
        shared = [cell for cell in a if cell in b]
        copied = bool(shared) and all(a[cell] is not None and a[cell] == b[cell] for cell in shared)
        if copied:
            reason = f"agree in their training losses to the last digit in all {len(shared)} runs they share"
        elif _are_one(definitions[first], definitions[second]):
            reason = "are equal in structure, score, allocation, schedule and fine-tuning"
        else:
            continue
        yield Pitfall(
            kind="twin-methods",
            title="One method stands under two names",
            where=task,
            finding=f"{first} and {second} {reason}.",
            advice="Keep one of them: a method that is counted twice tells nothing about the other's rank.",
            runs=(*keys[task, first], *keys[task, second]),
        )


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
