"""The recommendations of Section 6."""

from __future__ import annotations

from collections import defaultdict

from shrinkbench.report.checklist.evidence import (
    FEWEST_PAIRS,
    FEWEST_POINTS,
    LARGE_DATASETS,
    OLD_NETWORKS,
    TOY_DATASETS,
    Evidence,
)
from shrinkbench.report.checklist.lines import Decision, listing, rule, satisfied, violated
from shrinkbench.report.checklist.measurement import SIZE_FIGURE, SPEED_FIGURE, error_bars
from shrinkbench.results.record import RunResult


@rule("identify")
def identify(evidence: Evidence) -> Decision:
    """Names with one definition, and digests of data and weights."""
    vague = [r.key for r in evidence.results if not r.spec.data.revision]
    if vague:
        return violated(
            f"{len(vague)} runs do not record which data they used.",
            needed="Run them again.",
            runs=tuple(vague),
        )
    pairs = sorted({f"{r.spec.data.name} / {r.spec.model}" for r in evidence.results})
    return satisfied(f"Listed in one place under Provenance: {listing(pairs)}; metrics in docs/metrics.md.")


@rule("pairs")
def pairs(evidence: Evidence) -> Decision:
    """Pairs that are neither toy nor outdated, one of them large."""
    every = sorted({(r.spec.data.name, r.spec.model) for r in evidence.results})
    modern = [(d, m) for d, m in every if counts(d, m)]
    large = [pair for pair in modern if is_large(pair[0])]
    facts = [f"Pairs that count: {listing([' / '.join(p) for p in modern]) or 'none'}."]
    left_out = [" / ".join(p) for p in every if p not in modern]
    if left_out:
        facts.append(f"Toy data or outdated networks, which do not count: {listing(left_out)}.")
    if len(modern) < FEWEST_PAIRS or not large:
        if not large:
            facts.append("No pair is large-scale (ImageNet, Places365).")
        return violated(*facts, needed="Add pairs of a dataset and a network, one of them large-scale.")
    return satisfied(*facts)


def counts(dataset: str, network: str) -> bool:
    """Whether a pair is neither a toy nor outdated."""
    return dataset not in TOY_DATASETS and not any(old in network.lower() for old in OLD_NETWORKS)


def is_large(dataset: str) -> bool:
    """Whether a dataset is of ImageNet's scale."""
    return dataset.startswith(LARGE_DATASETS)


@rule("both-sizes")
def both_sizes(evidence: Evidence) -> Decision:
    """Both are stored for every run, by the definitions of the line."""
    bare = [r.key for r in evidence.results if r.size is None]
    if bare:
        return violated(f"{len(bare)} runs lack size or speedup.", needed="Run them again.", runs=tuple(bare))
    return satisfied("Both are stored for every run and drawn for every task.", figure=SPEED_FIGURE)


@rule("both-accuracies")
def both_accuracies(evidence: Evidence) -> Decision:
    """Both are stored for every run."""
    bare = [r.key for r in evidence.results if r.after is None]
    if bare:
        return violated(f"{len(bare)} runs lack accuracy.", needed="Run them again.", runs=tuple(bare))
    return satisfied("Both are stored for every run.", figure="figures/top5-compression.svg")


@rule("control")
def control(evidence: Evidence) -> Decision:
    """Compression 1 under the same fine-tuning, for every seed of every task."""
    seeds: dict[str, set[int]] = defaultdict(set)
    trained: set[str] = set()
    for (task, _, _), runs in evidence.cells.items():
        seeds[task] |= {r.spec.seed for r in runs}
        trained |= {task for r in runs if r.epochs_run}
    lacking = []
    for task, wanted in seeds.items():
        absent = sorted(wanted - evidence.control.get(task, {}).keys())
        if absent:
            lacking.append(f"{task} (seeds {', '.join(map(str, absent))})")
    if lacking:
        return violated(
            f"No control: {listing(lacking)}.", needed="Add compression 1 to the grid.", figure=SIZE_FIGURE
        )
    idle = [(t, r.key) for t in trained for r in evidence.control[t].values() if r.epochs_run == 0]
    if idle:
        tasks = listing(sorted({task for task, _ in idle}))
        return violated(
            f"The control was not fine-tuned, the pruned networks were: {tasks}.",
            needed="Fine-tune the control by the recipe of the pruned networks.",
            runs=tuple(key for _, key in idle),
            figure=SIZE_FIGURE,
        )
    return satisfied(
        "Every task has its control, fine-tuned like the pruned networks, for every seed.", figure=SIZE_FIGURE
    )


@rule("competing-curves")
def competing_curves(evidence: Evidence) -> Decision:
    """At least two methods on every task."""
    methods: dict[str, list[str]] = defaultdict(list)
    for task, method in evidence.curves():
        methods[task].append(method)
    alone = [f"{names[0]} on {task}" for task, names in methods.items() if len(names) < 2]
    if alone or not methods:
        return violated(
            f"Without a competitor: {listing(alone) or 'everything'}.",
            needed="Run at least one more method there.",
            figure=SIZE_FIGURE,
        )
    return satisfied("Every task is drawn with all its methods.", figure=SIZE_FIGURE)


@rule("operating-points")
def operating_points(evidence: Evidence) -> Decision:
    """Five targets for every curve."""
    few = [
        f"{method} on {task} ({', '.join(f'{t:g}' for t in evidence.targets(task, method))})"
        for task, method in evidence.curves()
        if len(evidence.targets(task, method)) < FEWEST_POINTS
    ]
    if few or not evidence.cells:
        return violated(
            f"Fewer than {FEWEST_POINTS} points: {listing(few) or 'no pruned network'}.",
            needed="Run the missing ratios of {2, 4, 8, 16, 32}.",
            figure=SIZE_FIGURE,
        )
    targets = sorted({target for _, _, target in evidence.cells})
    return satisfied(
        f"Every curve has at least {FEWEST_POINTS} points: {', '.join(f'{t:g}' for t in targets)}.",
        figure=SIZE_FIGURE,
    )


@rule("means-and-deviations")
def means_and_deviations(evidence: Evidence) -> Decision:
    """Decided as the error bars are."""
    return error_bars(evidence)


@rule("same-code")
def same_code(evidence: Evidence) -> Decision:
    """Within a task: one version of every library, one commit, one kind of device."""
    settings: dict[str, dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    for (task, _, _), runs in evidence.cells.items():
        for run in runs:
            settings[task][_setting(run)].append(run.key)
    mixed = {task: found for task, found in settings.items() if len(found) > 1}
    if mixed:
        task, found = next(iter(mixed.items()))
        kinds = [set(column) for column in zip(*found, strict=True)]
        differing = [" against ".join(sorted(kind)) for kind in kinds if len(kind) > 1]
        most = max(map(len, found.values()))
        return violated(
            f"Runs of one task differ in code or device on {listing(list(mixed))}.",
            f"On {task}: {listing(differing)}.",
            needed="Run the smaller part again with the versions of the larger.",
            runs=tuple(key for keys in found.values() for key in keys if len(keys) < most),
        )
    return satisfied("All runs of a task share library versions, commit, device and data loading.")


def _setting(run: RunResult) -> tuple[str, ...]:
    p = run.provenance
    names = ("shrinkbench", "torch", "torchvision")
    versions = tuple(f"{name} {p.versions.get(name, 'unknown')}" for name in names)
    return (*versions, f"commit {(p.commit or 'unknown')[:12]}", f"device {p.device}")
