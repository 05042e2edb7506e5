"""What one result says twice has to agree: ratios with counts, counts with layers, shares with whole images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from shrinkbench.results.record import Quality, RunResult, Size
from shrinkbench.spec import CLASSIFICATION, DETECTION

_EXACT = 1e-9  # relative: a ratio is stored with all digits of its division
_ROUNDING = 1e-6
_OF_AN_IMAGE = 1e-3  # shares are stored with far more digits than images can be told apart by
SHARES = tuple(metric for metric in CLASSIFICATION.metrics if metric.unit == "fraction")
"""Metrics that are a share of whole examples, from the strictest on: none is below the one before it."""


def contradictions(result: RunResult) -> Iterator[str]:
    """One clause for everything in ``result`` that does not follow from what it says elsewhere."""
    if result.size is not None:
        yield from _of_ratios(result.size)
        yield from _of_layers(result, result.size)
        if result.spec.is_control and result.size.parameters_kept != result.size.parameters:
            kept, whole = result.size.parameters_kept, result.size.parameters
            yield f"it is a control and keeps {kept} of {whole} parameters"
    yield from _of_epochs(result)
    yield from _of_selection(result)
    yield from _of_needed_validation(result)
    yield from _of_losses(result)
    qualities = {"before": result.before, "after": result.after, "validation": result.validation}
    qualities |= {f"further.{name}": quality for name, quality in result.further.items()}
    names = [metric.name for metric in SHARES if metric in result.spec.task.objective.metrics]
    for place, quality in qualities.items():
        if quality is not None:
            yield from _of_shares(place, quality, names)
    yield from _of_reach(result)
    if names:
        yield from _of_images(result)
        yield from _of_validated(result, names)


def _of_ratios(size: Size) -> Iterator[str]:
    ratios = (
        ("compression", size.compression, "parameters", size.parameters, size.parameters_kept),
        (
            "theoretical_speedup",
            size.theoretical_speedup,
            "multiply-adds",
            size.multiply_adds,
            size.multiply_adds_kept,
        ),
    )
    for name, stored, what, whole, kept in ratios:
        if not math.isclose(stored, whole / max(1, kept), rel_tol=_EXACT):
            yield f"size.{name} = {stored:.6g} is not {whole} / {kept} {what} = {whole / max(1, kept):.6g}"


def _of_layers(result: RunResult, size: Size) -> Iterator[str]:
    """Masks remove what the layers lack; a detector, which is cut, loses more than those of its classifier."""
    gone = size.parameters - size.parameters_kept
    is_cut = result.spec.task.objective.headline == DETECTION.headline
    if not result.layers:
        if gone and not is_cut and result.spec.migrated_from is None:
            yield f"the network lacks {gone} weights, and no layer is named that they are of"
        return
    pruned = sum(layer.total - layer.kept for layer in result.layers.values())
    if pruned > gone or (pruned < gone and not is_cut):
        yield f"the layers lack {pruned} weights and the network {gone}: the layers do not add up"
    bins = result.weight_histogram
    total, kept = (sum(getattr(layer, part) for layer in result.layers.values()) for part in ("total", "kept"))
    for when, counts, most in (("before", bins and bins.before, total), ("after", bins and bins.after, kept)):
        if sum(counts or ()) > most:
            yield f"the histogram has {sum(counts or ())} weights {when} pruning, and the layers {most}"


def _of_epochs(result: RunResult) -> Iterator[str]:
    """Epochs are numbered one after the other; rewound training goes on from a later one than the first."""
    run, selected = result.epochs_run, result.selected_epoch
    listed = [epoch.epoch for epoch in result.epochs]
    first = listed[0] if listed else 1
    if listed != [*range(first, first + len(listed))]:
        yield f"its {len(listed)} epochs are not numbered one after the other, each once"
    if run is not None and selected is not None and selected >= first + run and selected > 0:
        yield f"epoch {selected} is selected of {run} that were run, from epoch {first} on"
    if result.spec.migrated_from is not None or result.status == "failed":  # of old, not all were stored
        return
    if run is not None and run != len(listed):
        yield f"it was trained for {run} epochs and has records of {len(listed)}"
    allowed, after = result.spec.recipe.epochs, result.spec.method.finetuning
    last = max([run or 0, *listed])
    if last > allowed and after.equal != "computation":  # which trains smaller networks for longer
        yield f"it was trained up to epoch {last}, and its recipe has {allowed}"


def _of_selection(result: RunResult) -> Iterator[str]:
    """What is measured on validation is of the epoch whose weights were taken, as that was written down."""
    selected, validation = result.selected_epoch, result.validation
    recorded = {epoch.epoch: epoch for epoch in result.epochs}
    if selected is None:
        if any(epoch.validation for epoch in result.epochs):
            yield "its epochs were validated, and none is selected"
        return
    if selected == 0 and validation is not None and recorded:
        yield "it has a quality on validation, and no epoch is selected that it is of"
    if selected == 0 or validation is None:
        return
    epoch = recorded.get(selected)
    if epoch is None:
        if result.spec.migrated_from is None:
            yield f"epoch {selected} is selected, and there is no record of it"
        return
    for name, value in epoch.validation.items():
        own = validation.metrics.get(name)
        if own is not None and own != value:
            yield f"validation.{name} = {own:.9g} is not that of the selected epoch {selected}, {value:.9g}"


def _of_needed_validation(result: RunResult) -> Iterator[str]:
    """A recipe that takes an epoch, or stops, by validation has it of every epoch, and of the one it took."""
    recipe = result.spec.recipe
    stops = recipe.early_stopping is not None and recipe.selection == "last"
    if result.spec.migrated_from is not None or not (stops or recipe.selection == "best-validation"):
        return
    what = f"recipe '{recipe.name}' {'stops' if stops else 'takes the best epoch'} by validation"
    bare = next((epoch.epoch for epoch in result.epochs if not epoch.validation), None)
    if bare is not None:
        yield f"its {what}, and epoch {bare} was not validated"
    elif result.selected_epoch and result.validation is None:
        yield f"its {what}, and has no quality on it of epoch {result.selected_epoch}, which it took"


def _of_losses(result: RunResult) -> Iterator[str]:
    """A cross-entropy is a mean of -log p, which is not negative; nor is what is added to distil a teacher."""
    objective = result.spec.task.objective
    if objective.loss != CLASSIFICATION.loss or objective.source is not None:
        return
    for epoch in result.epochs:
        if epoch.train_loss < -_ROUNDING:
            loss = epoch.train_loss
            yield f"the training loss of epoch {epoch.epoch} is {loss:g}, and no cross-entropy is negative"
            return


def _of_reach(result: RunResult) -> Iterator[str]:
    """A run that fails since its target is out of reach names a smaller one that is not."""
    reach, target = result.reachable, result.spec.target
    if reach is not None and target is not None and reach > target:
        yield f"it failed to meet {target:g}, and says that up to {reach:g} can be met"


def _of_images(result: RunResult) -> Iterator[str]:
    """The test split is one, and a subset that the specification asks for is measured whole."""
    data = result.spec.data
    before, after = (quality and quality.examples for quality in (result.before, result.after))
    if before and after and before != after:
        yield f"the test split has {before} images before training and {after} after"
    for place, quality, asked in (
        ("before", result.before, data.test_images),
        ("after", result.after, data.test_images),
        ("validation", result.validation, data.validation_images),
    ):
        if quality is not None and asked is not None and quality.examples != asked:
            yield f"{place} is of {quality.examples} images, and its specification asks for {asked}"


def _of_validated(result: RunResult, names: list[str]) -> Iterator[str]:
    """Epochs are validated on as many images as the selected one."""
    if result.validation is None:
        return
    for epoch in result.epochs:
        quality = Quality.model_construct(metrics=epoch.validation, examples=result.validation.examples)
        for clause in _of_shares(f"epoch {epoch.epoch}", quality, names):
            yield clause
            return


def _of_shares(place: str, quality: Quality, names: list[str]) -> Iterator[str]:
    known = [(name, quality[name]) for name in names if name in quality.metrics]
    for name, share in known:
        count = share * quality.examples
        if abs(count - round(count)) > _OF_AN_IMAGE:
            yield f"{place}.{name} = {share:.9g} is not a count of {quality.examples} images"
    for (name, share), (wider, more) in itertools.pairwise(known):
        if more < share:
            yield f"{place}.{wider} = {more:g} is below {name} = {share:g}"
