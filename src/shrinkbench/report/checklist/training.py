"""What pruned networks are measured against by other training: the control, from scratch, equal shares."""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from shrinkbench.cells import say_count
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.checklist.causes import Point, say
from shrinkbench.report.checklist.evidence import Evidence, keep_alike, keeps_equal_shares, removes_as_much
from shrinkbench.report.checklist.lines import Judgement, inapplicable, rule, satisfied, violated
from shrinkbench.report.checklist.measurement import SIZE_FIGURE
from shrinkbench.report.checklist.roles import (
    is_automatic,
    is_scratch_of,
    is_structured,
    is_uniform,
    is_uniform_counterpart,
)
from shrinkbench.results.conflicts import unlike
from shrinkbench.results.record import RunResult
from shrinkbench.spec.training_cost import scratch_b_epochs

Length = Literal["as many epochs", "stopped by one rule", "as much computation", "unknown", "another length"]


@rule("control")
def control(evidence: Evidence) -> Judgement:
    """The own control of every run: nothing pruned, trained alike and as long, of the same seed."""
    lacking: list[Point] = []
    unequal: dict[tuple[int | None, int | None], list[Point]] = defaultdict(list)
    found: dict[Length, int] = defaultdict(int)
    faulty: dict[str, None] = {}
    for runs in evidence.cells.values():
        for run in runs:
            copies = evidence.controls_of(run)
            if not copies:
                lacking.append(evidence.point_of(run))
            for own in copies:
                length = _compare_length(run, own)
                found[length] += own is copies[0]
                if length == "another length":
                    unequal[own.epochs_run, run.epochs_run].append(evidence.point_of(run))
                    faulty[own.key] = None
    facts = []
    if lacking:
        facts.append(
            f"Without a finished control of their own seed and training: {say(lacking, evidence.grid)}."
        )
    disputed = [run for run in evidence.results if run.spec.is_control and run.key in evidence.disputed]
    if disputed:
        every = [evidence.point_of(run) for run in evidence.results if run.spec.is_control]
        facts.append(
            "Controls with other numbers or another outcome in another source: "
            f"{say([evidence.point_of(run) for run in disputed], every)}."
        )
        faulty |= {run.key: None for run in disputed}
    for (own_epochs, epochs), points in unequal.items():
        facts.append(
            f"The control was trained for {own_epochs} epochs, the pruned networks for {epochs}: "
            f"{say(points, evidence.grid)}."
        )
    differing = _differing_copies(evidence)
    if differing:
        points = [evidence.point_of(copy) for copy in differing]
        every = [evidence.point_of(copy) for copies in evidence.controls.values() for copy in copies]
        facts.append(
            f"Copies of one control that differ from another method's in what they measured: "
            f"{say(points, every)}."
        )
        faulty |= {copy.key: None for copy in differing}
    if facts:
        needed = "Add compression 1 to the grid, trained by the recipe of the pruned networks to its end."
        return violated(*facts, needed=needed, runs=tuple(faulty), figure=SIZE_FIGURE)
    lengths = [
        f"{length} ({say_count(count, 'run', 'runs')})"
        for length, count in found.items()
        if length != "unknown"
    ]
    unknown = found.get("unknown")
    return satisfied(
        f"Every pruned run has a control of its task, seed and recipe, equal by value, and of equal length: "
        f"{'; '.join(lengths) or 'nobody recorded which'}.",
        *(
            [
                f"{say_count(unknown, 'run does', 'runs do')} not record for how many epochs each "
                "and its control were trained."
            ]
            if unknown
            else ()
        ),
        figure=SIZE_FIGURE,
    )


def _compare_length(run: RunResult, own: RunResult) -> Length:
    """Whether a run and its control, of one recipe by their keys, were really trained for as long."""
    if run.epochs_run is None or own.epochs_run is None:
        return "unknown"
    recipe, after = own.spec.recipe, run.spec.method.finetuning
    if recipe.early_stopping is not None:
        whole = own.epochs_run >= min(recipe.early_stopping.patience, recipe.epochs)
        return "stopped by one rule" if whole else "another length"
    if after.weights == "scratch" and after.equal == "computation":
        return (
            "as much computation" if run.epochs_run == _equal_epochs(run, own.epochs_run) else "another length"
        )
    return "as many epochs" if run.epochs_run == own.epochs_run else "another length"


def _equal_epochs(run: RunResult, epochs: int) -> int | None:
    """For how many epochs a pruned network is trained to cost what ``epochs`` of the whole one do."""
    size = run.size
    if size is None:
        return None
    try:
        return scratch_b_epochs(
            epochs, large=size.multiply_adds, small=size.multiply_adds_kept, cap=run.spec.recipe.largest_stretch
        )
    except ShrinkbenchError:
        return None


def _differing_copies(evidence: Evidence) -> list[RunResult]:
    """Controls that disagree with the first copy under the same key, though one key means one training."""
    return [copy for copies in evidence.controls.values() for copy in copies[1:] if unlike(copies[0], copy)]


@rule("from-scratch")
def from_scratch(evidence: Evidence) -> Judgement:
    """A structured method's architecture, trained from random weights for equal computation."""
    needing = [
        (cell, run)
        for cell, runs in evidence.cells.items()
        for run in runs
        if cell[1] in evidence.proposed and is_structured(run.spec.method) and not run.spec.method.from_scratch
    ]
    if not needing:
        return inapplicable("No judged method removes more than single weights together.")
    lacking, short, examples = [], [], []
    for (task, _, amount), run in needing:
        matches = [
            other
            for name, method in evidence.methods.items()
            if is_scratch_of(method, run.spec.method)
            for other in evidence.cells.get((task, name, amount), ())
            if other.spec.seed == run.spec.seed and _keep_the_same(run, other)
        ]
        if not matches:
            lacking.append(evidence.point_of(run))
        elif all(_is_short(other) for other in matches):
            short.append(evidence.point_of(run))
        examples += [other.key for other in matches[:1]]
    if not (lacking or short):
        return satisfied(
            "Beside every run of a judged structured method, one of the same seed and amount trains what is "
            "kept from scratch, for as many epochs as cost the multiply-adds of training the large network by "
            "that recipe"
            f"{_say_cap(evidence, examples)}.",
            figure=SIZE_FIGURE,
            runs=tuple(examples[:12]),
        )
    grid = [evidence.point_of(run) for _, run in needing]
    facts = []
    if lacking:
        facts.append(
            "What was kept of every layer was not trained from scratch at equal computation: "
            f"{say(lacking, grid)}."
        )
    if short:
        facts.append(
            f"Trained from scratch, but for less computation than the large network: {say(short, grid)}."
        )
    return violated(*facts, needed="Run each method with [finetuning=scratch-b] too.", figure=SIZE_FIGURE)


def _keep_the_same(run: RunResult, other: RunResult) -> bool:
    """Whether as many weights stay of every layer; of the network, where layers are not recorded."""
    if run.layers and other.layers:
        return keep_alike(run.layers, other.layers)
    sizes = [r.size.parameters_kept if r.size else None for r in (run, other)]
    return sizes[0] == sizes[1]


def _is_short(run: RunResult) -> bool:
    """Whether a network was trained for less than its recipe's computation; unknown counts as not."""
    if run.epochs_run is None or run.spec.recipe.early_stopping is not None:
        return False
    wanted = _equal_epochs(run, run.spec.recipe.epochs)
    return wanted is not None and run.epochs_run < wanted


def _say_cap(evidence: Evidence, keys: list[str]) -> str:
    recipes = [evidence.by_key[key].spec.recipe for key in keys]
    caps = sorted({recipe.largest_stretch for recipe in recipes if recipe.largest_stretch is not None})
    stops = ", or until early stopping" if any(recipe.early_stopping for recipe in recipes) else ""
    bounds = " and ".join(f"{cap:g}" for cap in caps)
    return (f", at most {bounds} times as long" if caps else "") + stops


@rule("uniform")
def uniform(evidence: Evidence) -> Judgement:
    """A method that settles the shares of layers itself, beside equal shares of the same structure."""
    needing = [
        (cell, run)
        for cell, runs in evidence.cells.items()
        for run in runs
        if cell[1] in evidence.proposed and is_automatic(run.spec.method, run.spec.amount)
    ]
    if not needing:
        return inapplicable("No judged method settles by itself how much of every layer stays.")
    others: dict[tuple[str, int], list[RunResult]] = defaultdict(list)
    for (task, _, _), runs in evidence.cells.items():
        for run in runs:
            if is_uniform(run.spec.method, run.spec.amount):  # asked once of each, not beside each other one
                others[task, run.spec.seed].append(run)
    lacking, examples = [], []
    for (task, _, _), run in needing:
        own = run.spec
        matches = [
            other.key
            for other in others[task, own.seed]
            if is_uniform_counterpart(other.spec.method, other.spec.amount, own.method, own.amount)
            and removes_as_much(other, run)
            and keeps_equal_shares(other)
        ]
        examples += matches[:1]
        if not matches:
            lacking.append(evidence.point_of(run))
    if lacking:
        grid = [evidence.point_of(run) for _, run in needing]
        return violated(
            f"No run that removes as much by equal shares of every layer beside: {say(lacking, grid)}.",
            needed="Run layerwise_magnitude with the structure of each method, to the same amounts.",
            figure=SIZE_FIGURE,
        )
    return satisfied(
        "Beside every run of a judged method that settles the shares of layers itself, a run of the same seed "
        "removes as much by equal shares of the same structure.",
        figure=SIZE_FIGURE,
        runs=tuple(dict.fromkeys(examples))[:12],
    )
