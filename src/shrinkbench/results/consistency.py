"""What one result says twice has to agree: ratios with counts, counts with layers, shares with whole images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from shrinkbench.results.record import Quality, RunResult, Size
from shrinkbench.spec import CLASSIFICATION, DETECTION

_EXACT = 1e-9  # relative: a ratio is stored with all digits of its division
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
    qualities = {"before": result.before, "after": result.after, "validation": result.validation}
    qualities |= {f"further.{name}": quality for name, quality in result.further.items()}
    names = [metric.name for metric in SHARES if metric in result.spec.task.objective.metrics]
    for place, quality in qualities.items():
        if quality is not None:
            yield from _of_shares(place, quality, names)


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
    if not result.layers:
        return
    pruned = sum(layer.total - layer.kept for layer in result.layers.values())
    gone = size.parameters - size.parameters_kept
    is_cut = result.spec.task.objective.headline == DETECTION.headline
    if pruned > gone or (pruned < gone and not is_cut):
        yield f"the layers lack {pruned} weights and the network {gone}: the layers do not add up"


def _of_epochs(result: RunResult) -> Iterator[str]:
    """Epochs are numbered one after the other; rewound training goes on from a later one than the first."""
    run, selected = result.epochs_run, result.selected_epoch
    listed = [epoch.epoch for epoch in result.epochs]
    first = listed[0] if listed else 1
    if listed != [*range(first, first + len(listed))]:
        yield f"its {len(listed)} epochs are not numbered one after the other, each once"
    if run is not None and selected is not None and selected >= first + run and selected > 0:
        yield f"epoch {selected} is selected of {run} that were run, from epoch {first} on"


def _of_shares(place: str, quality: Quality, names: list[str]) -> Iterator[str]:
    known = [(name, quality[name]) for name in names if name in quality.metrics]
    for name, share in known:
        count = share * quality.examples
        if abs(count - round(count)) > _OF_AN_IMAGE:
            yield f"{place}.{name} = {share:.9g} is not a count of {quality.examples} images"
    for (name, share), (wider, more) in itertools.pairwise(known):
        if more < share:
            yield f"{place}.{wider} = {more:g} is below {name} = {share:g}"
