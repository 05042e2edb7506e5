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
from shrinkbench.report.checklist.lines import Judgement, listing, rule, satisfied, violated
from shrinkbench.report.checklist.measurement import (
    SIZE_FIGURE,
    SPEED_FIGURE,
    always_stored,
    error_bars,
)
from shrinkbench.results.record import RunResult


@rule("identify")
def identify(evidence: Evidence) -> Judgement:
    """Names with one definition, and digests of data and weights."""
    vague = [r.key for r in evidence.results if not r.spec.data.revision]
    if vague:
        return violated(
            f"{len(vague)} runs do not record which data they used.",
            needed="Run them again.",
            runs=tuple(vague),
        )
    pairs = sorted({f"{r.spec.data.name} / {r.spec.model.name}" for r in evidence.results})
    return satisfied(f"Listed in one place under Provenance: {listing(pairs)}; metrics in docs/metrics.md.")


@rule("pairs")
def pairs(evidence: Evidence) -> Judgement:
    """Pairs that are neither toy nor outdated, one of them large."""
    every = sorted({(r.spec.data.name, r.spec.model.name) for r in evidence.results})
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
    return dataset not in TOY_DATASETS and network not in OLD_NETWORKS


def is_large(dataset: str) -> bool:
    """Whether a dataset is of ImageNet's scale."""
    return dataset in LARGE_DATASETS


@rule("both-sizes")
def both_sizes(evidence: Evidence) -> Judgement:
    """Both are stored for every run, by the definitions of the line."""
    return always_stored(evidence, "state compression and theoretical speedup", SPEED_FIGURE)


@rule("both-accuracies")
def both_accuracies(evidence: Evidence) -> Judgement:
    """Both are stored for every run."""
    bare = [r.key for r in evidence.results if r.after and not {"top1", "top5"} <= r.after.metrics.keys()]
    if bare:
        return violated(
            f"{len(bare)} runs state no top-1 or no top-5.",
            needed="Measure both where the task is classification.",
            runs=tuple(bare),
        )
    return always_stored(evidence, "state top-1 and top-5", "figures/top5-compression.svg")


@rule("control")
def control(evidence: Evidence) -> Judgement:
    """The own control of every run: nothing pruned, trained alike, of the same seed."""
    lacking: dict[tuple[str, str], set[int]] = defaultdict(set)
    idle: dict[str, str] = {}
    for (task, method, _), runs in evidence.cells.items():
        for run in runs:
            own = evidence.control_of(run)
            if own is None:
                lacking[task, method].add(run.spec.seed)
            elif run.epochs_run and own.epochs_run == 0:
                idle[own.key] = task
    if lacking:
        cases = [f"{m} on {t} (seeds {', '.join(map(str, sorted(s)))})" for (t, m), s in lacking.items()]
        return violated(
            f"Without a control that was trained alike: {listing(cases)}.",
            needed="Add compression 1 to the grid.",
            figure=SIZE_FIGURE,
        )
    if idle:
        return violated(
            f"The control was not fine-tuned, the pruned networks were: {listing(sorted(set(idle.values())))}.",
            needed="Fine-tune the control by the recipe of the pruned networks.",
            runs=tuple(idle),
            figure=SIZE_FIGURE,
        )
    return satisfied("Every pruned run has a control of its seed that was trained alike.", figure=SIZE_FIGURE)


@rule("competing-curves")
def competing_curves(evidence: Evidence) -> Judgement:
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
def operating_points(evidence: Evidence) -> Judgement:
    """Five amounts for every curve."""
    few = [
        f"{method} on {task} ({', '.join(evidence.amounts(task, method))})"
        for task, method in evidence.curves()
        if len(evidence.amounts(task, method)) < FEWEST_POINTS
    ]
    if few or not evidence.cells:
        return violated(
            f"Fewer than {FEWEST_POINTS} points: {listing(few) or 'no pruned network'}.",
            needed="Run the missing ratios of {2, 4, 8, 16, 32}.",
            figure=SIZE_FIGURE,
        )
    amounts = dict.fromkeys(amount for _, _, amount in evidence.cells)
    return satisfied(
        f"Every curve has at least {FEWEST_POINTS} points: {listing(list(amounts), limit=12)}.",
        figure=SIZE_FIGURE,
    )


@rule("means-and-deviations")
def means_and_deviations(evidence: Evidence) -> Judgement:
    """Decided as the error bars are."""
    return error_bars(evidence)


@rule("same-code")
def same_code(evidence: Evidence) -> Judgement:
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
