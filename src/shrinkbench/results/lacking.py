"""What most runs of one kind record and a few leave out: a record that is gone cannot contradict another."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from shrinkbench.results.record import RunResult

FEW = 0.5
"""Where more of the runs of a kind than this lack a record, nobody was to have it."""


def find_lacking(results: Iterable[RunResult]) -> Iterator[str]:
    """Runs without a record that most others of their kind have, one clause for each run.

    Of one kind are runs of one task, recipe, schedule and fine-tuning, by one version, that trained or did not;
    layers, histograms and references are those of a method. Versions are recorded by all or none.
    """
    kinds: dict[object, list[RunResult]] = defaultdict(list)
    done = [run for run in results if run.status == "done" and run.spec.migrated_from is None]
    for run in done:
        method, version = run.spec.method, run.provenance.versions.get("shrinkbench")
        kind = run.spec.task, run.spec.recipe, method.schedule, method.finetuning, run.spec.is_control
        kinds[kind, version, bool(run.epochs)].append(run)
    yield from _lacking(done, _versions)
    for runs in kinds.values():
        yield from _lacking(runs, _records)
        methods: dict[object, list[RunResult]] = defaultdict(list)
        for run in runs:
            pruned = run.spec.prune_classifier, run.spec.prune_biases, run.spec.prune_embeddings
            methods[run.spec.method, run.spec.constraints, pruned].append(run)
        for alike in methods.values():
            yield from _lacking(alike, _records_of_method)
    yield from _renamed(done)


def _lacking(runs: Sequence[RunResult], records: Callable[[RunResult], Iterable[str]]) -> Iterator[str]:
    own = [frozenset(records(run)) for run in runs]
    counts = Counter(name for found in own for name in found)
    usual = sorted(name for name, count in counts.items() if len(runs) > 2 and count > FEW * len(runs))
    for run, found in zip(runs, own, strict=True):
        gone = [name for name in usual if name not in found]
        if gone:
            more = f" and {len(gone) - 2} more" if len(gone) > 2 else ""
            yield (
                f"run {run.key[:12]}: it has no {' and no '.join(gone[:2])}{more}, which {counts[gone[0]]} of "
                f"{len(runs)} runs of its kind have"
            )


def _renamed(runs: Iterable[RunResult]) -> Iterator[str]:
    """Runs whose layers are as large as those of most runs of the network, and go by other names."""
    networks: dict[object, dict[tuple[str, ...], list[RunResult]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        sizes = tuple(sorted(layer.total for layer in run.layers.values()))
        networks[run.spec.task.model, run.spec.data.name, sizes][tuple(sorted(run.layers))].append(run)
    for by_names in networks.values():
        usual = max(by_names, key=lambda names: len(by_names[names]))
        for names, found in by_names.items():
            if names != usual:
                new, old = sorted({*names} - {*usual})[0], sorted({*usual} - {*names})[0]
                yield from (
                    f"run {run.key[:12]}: it has a layer '{new}' in place of '{old}', which "
                    f"{len(by_names[usual])} runs of its network have"
                    for run in found
                )


def _versions(run: RunResult) -> Iterator[str]:
    yield from (f"version of {name}" for name in ("torch", "shrinkbench") if name in run.provenance.versions)


def _records(run: RunResult) -> Iterator[str]:
    """The names of all that ``run`` may record and need not."""
    if run.cost is not None:
        yield "cost of training"
        if run.cost.pretraining is not None:
            yield "cost of pretraining"
    if run.selected_epoch is not None:
        yield "selected epoch"
    for place, quality in (("before training", run.before), ("on validation", run.validation)):
        yield from (f"{name} {place}" for name in (quality.metrics if quality is not None else ()))
    if run.epochs:
        known = frozenset.intersection(*(frozenset(epoch.validation) for epoch in run.epochs))
        yield from (f"{name} on validation after every epoch" for name in known)


def _records_of_method(run: RunResult) -> Iterator[str]:
    """The same of what depends on the method: it may look at some weights of the network alone."""
    yield from (f"reference of the {what}" for what in run.references)
    bins = run.weight_histogram
    if bins is not None and any(bins.before):
        yield "histogram of weights"
        layers = run.layers.values()
        whole, kept = sum(layer.total for layer in layers), sum(layer.kept for layer in layers)
        if sum(bins.before) == whole and sum(bins.after) == kept:
            yield "histogram of all weights"
