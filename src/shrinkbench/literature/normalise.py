"""One set of metrics from whatever a paper printed, with the derivation of every value.

Accuracies are fractions classified right, changes are differences of such fractions, sizes are original over
pruned (compression ratio, theoretical speedup; Section 6 of the paper). Every way to a value has the bounds
that the printed digits leave, and the value has those that all ways leave together; it comes from the most
precise way, so that "22 %" never hides "47.8 of 60.9 million". Of equally precise ways, the printed value wins
over a derived one. The difference of two printed accuracies always wins over a printed change, as in the paper.
Where ways to a value disagree by more than the printed digits can explain, that is a conflict, and it is kept
beside the value, not hidden by it; the later way is then not used. A printed value that cannot be is no way to
anything.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, get_args

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.literature.corpus import Result
from shrinkbench.literature.errata import count_errata
from shrinkbench.literature.reference import FACTORS, Convention, convolution_share, operations_convention

Reading = Literal["original / kept", "fraction pruned", "fraction kept"]
"""What papers mean by "compression ratio" or "pruned %"."""


def compression_ratio(value: float, *, reading: Reading) -> float:
    """Original size over kept size from ``value`` under an explicit ``reading``.

    Raises ``ShrinkbenchError`` where the value is impossible under that reading.

    >>> compression_ratio(0.75, reading="fraction pruned")
    4.0
    >>> compression_ratio(0.25, reading="fraction kept")
    4.0
    """
    ratio = {
        "original / kept": lambda: value,
        "fraction pruned": lambda: 1 / (1 - value) if value < 1 else math.nan,
        "fraction kept": lambda: 1 / value if 0 < value <= 1 else math.nan,
    }[reading]()
    if not (math.isfinite(ratio) and ratio > 0 and value >= 0):
        raise ShrinkbenchError(f"{value:g} cannot be a '{reading}'; give another reading of the printed value")
    return ratio


def readings(value: float) -> dict[Reading, float]:
    """The compression ratio under every reading that ``value`` allows: what an unexplained number may mean.

    >>> readings(0.6)
    {'fraction pruned': 2.5, 'fraction kept': 1.6666666666666667}
    """
    found: dict[Reading, float] = {}
    for reading in get_args(Reading):
        if reading == "original / kept" and value < 1:
            continue
        try:
            found[reading] = compression_ratio(value, reading=reading)
        except ShrinkbenchError:
            continue
    return found


@dataclass(frozen=True)
class Measure:
    """A value with the derivation it comes from, and the bounds that all printed digits leave.

    ``errata`` counts the corrected numbers that it is derived from.
    """

    value: float
    low: float
    high: float
    derivation: str
    spread: float | None = None
    errata: int = 0

    @property
    def is_printed(self) -> bool:
        """Whether the paper prints this very value."""
        return self.derivation == PRINTED

    def meets(self, other: Measure) -> bool:
        """Whether some value lies within the bounds of both."""
        return self.low <= other.high and other.low <= self.high


PRINTED = "as printed"
CORRECTED = "corrected by an erratum"
_ALIKE = 1 + 1e-9
"""Two ways whose bounds are as wide as each other up to this factor are equally precise: floats round."""


@dataclass(frozen=True)
class Conflict:
    """Two ways to one value that disagree beyond the printed digits; ``other`` is not in use."""

    quantity: str
    used: Measure
    other: Measure

    def __str__(self) -> str:
        return (
            f"{self.quantity}: {self.used.value:.4g} ({self.used.derivation}) "
            f"but {self.other.value:.4g} ({self.other.derivation})"
        )


@dataclass(frozen=True)
class Normalised:
    """A result in common metrics; ``convention`` says what its operation counts count."""

    result: Result
    measures: dict[str, Measure]
    conflicts: tuple[Conflict, ...]
    convention: Convention

    def value(self, quantity: str) -> float | None:
        """The value of ``quantity``; ``None`` where the paper gives no way to it."""
        measure = self.measures.get(quantity)
        return None if measure is None else measure.value


def normalise(result: Result) -> Normalised:
    """Bring ``result`` to top-1, top-5, their changes, compression ratio, theoretical speedup and counts."""
    ways: dict[str, list[Measure | None]] = {}
    for top in ("top1", "top5"):
        ways |= _accuracy_ways(result, top)
    ways |= _size_ways(result)
    convention, operation_ways = _operation_ways(result)
    ways |= operation_ways
    measures, conflicts = {}, []
    for quantity, found in ways.items():
        agreeing, contradictions = _sort_out(quantity, found)
        conflicts += contradictions
        if agreeing:
            measures[quantity] = agreeing[0] if quantity.endswith("_change") else narrowest(agreeing)
    return Normalised(result, measures, tuple(conflicts), convention)


def narrowest(ways: Sequence[Measure]) -> Measure:
    """The most precise of ``ways`` that agree, the first of equals, within the bounds that all of them leave.

    >>> rough, fine = Measure(1.28, 1.26, 1.30, "pruned"), Measure(1.274, 1.269, 1.279, "kept")
    >>> narrowest([rough, fine])
    Measure(value=1.274, low=1.269, high=1.279, derivation='kept', spread=None, errata=0)
    """
    low, high = max(way.low for way in ways), min(way.high for way in ways)
    least = min(way.high - way.low for way in ways)
    best = next(way for way in ways if way.high - way.low <= least * _ALIKE)
    return replace(best, value=min(max(best.value, low), high), low=low, high=high)


def _sort_out(quantity: str, found: Iterable[Measure | None]) -> tuple[list[Measure], list[Conflict]]:
    """The ways that agree with all before them, and a contradiction for each of the others."""
    agreeing: list[Measure] = []
    contradictions = []
    for way in found:
        if way is None:
            continue
        clash = next((earlier for earlier in agreeing if not earlier.meets(way)), None)
        if clash is None:
            agreeing.append(way)
        else:
            contradictions.append(Conflict(quantity, clash, way))
    return agreeing, contradictions


def derivation_counts(results: Iterable[Normalised]) -> dict[str, int]:
    """How many results took each derivation, by "quantity: derivation", commonest first."""
    counts = Counter(
        f"{quantity}: {measure.derivation}"
        for result in results
        for quantity, measure in result.measures.items()
        if not measure.is_printed
    )
    return dict(counts.most_common())


def _take_printed(result: Result, quantity: str) -> Measure | None:
    fact = result.facts.get(quantity)
    if fact is None or fact.impossible:
        return None
    value, slack = fact.scaled, fact.resolution
    errata = count_errata([fact])
    derivation = CORRECTED if errata else PRINTED
    return Measure(value, value - slack, value + slack, derivation, fact.scaled_spread, errata)


def _derive(derivation: str, formula: Callable[..., float], *inputs: Measure | None) -> Measure | None:
    """``formula``, monotone in each input, with bounds from the corners of theirs.

    Nothing where an input is missing.
    """
    known = [measure for measure in inputs if measure is not None]
    if len(known) < len(inputs):
        return None
    value = formula(*(measure.value for measure in known))
    corners = [formula(*corner) for corner in product(*((m.low, m.high) for m in known))]
    errata = sum(measure.errata for measure in known)
    return Measure(value, min(corners), max(corners), derivation, known[0].spread, errata)


def _ratio(derivation: str, original: Measure | None, kept: Measure | None) -> Measure | None:
    """Original over kept; nothing where either is missing or not positive."""
    if original is None or kept is None or original.value <= 0 or kept.value <= 0:
        return None
    low = max(original.low, 0.0) / kept.high
    high = original.high / kept.low if kept.low > 0 else math.inf
    errata = original.errata + kept.errata
    return Measure(original.value / kept.value, low, high, derivation, errata=errata)


_WHOLE = Measure(1.0, 1.0, 1.0, "")


def _take_first(ways: Iterable[Measure | None]) -> Measure | None:
    return next((measure for measure in ways if measure is not None), None)


def _take_narrowest(ways: Iterable[Measure | None]) -> Measure | None:
    """The value that :func:`normalise` takes from ``ways``."""
    agreeing, _ = _sort_out("", ways)
    return narrowest(agreeing) if agreeing else None


def _and_where_it_agrees(printed: Measure, derived: Measure | None) -> list[Measure | None]:
    """``printed``, and ``derived`` to narrow it; a contradiction is told of the value that is derived from."""
    return [printed, derived if derived is not None and printed.meets(derived) else None]


def _complement(measure: Measure | None) -> Measure | None:
    return _derive("", lambda part: 1 - part, measure)


def _accuracy_ways(result: Result, top: str) -> dict[str, list[Measure | None]]:
    """Ways to the accuracy after pruning, before it, and to their difference, best first."""

    def stated(quantity: str) -> list[Measure | None]:
        error = _take_printed(result, f"{quantity}_error")
        return [_take_printed(result, quantity), _derive(f"1 - {quantity}_error", lambda e: 1 - e, error)]

    after, before = stated(top), stated(f"initial_{top}")
    change = _take_printed(result, f"{top}_change")
    first_after, first_before = _take_first(after), _take_first(before)
    difference = _derive(f"{top} - initial_{top}", lambda a, b: a - b, first_after, first_before)
    return {
        top: after
        if first_after
        else [_derive(f"initial_{top} + {top}_change", lambda b, d: b + d, first_before, change)],
        f"initial_{top}": before
        if first_before
        else [_derive(f"{top} - {top}_change", lambda a, d: a - d, first_after, change)],
        f"{top}_change": [difference, change],
    }


def _size_ways(result: Result) -> dict[str, list[Measure | None]]:
    """Ways to the compression ratio and the counts of parameters, best first."""
    parameters, initial = _take_printed(result, "parameters"), _take_printed(result, "initial_parameters")
    share = convolution_share(*result.pair)
    pruned_weights = _take_printed(result, "convolution_weights_pruned")
    kept_of_all = None if share is None else _derive("", lambda p: 1 - share * p, pruned_weights)
    compression = [
        _take_printed(result, "compression"),
        _ratio("1 / parameters_kept", _WHOLE, _take_printed(result, "parameters_kept")),
        _ratio("1 / (1 - parameters_pruned)", _WHOLE, _complement(_take_printed(result, "parameters_pruned"))),
        _ratio("initial_parameters / parameters", initial, parameters),
        _ratio("1 / (1 - convolution share x convolution_weights_pruned)", _WHOLE, kept_of_all),
    ]
    ratio = _take_narrowest(compression)
    kept = _ratio("initial_parameters / compression", initial, ratio)
    whole = _derive("parameters x compression", lambda p, c: p * c, parameters, ratio)
    return {
        "compression": compression,
        "parameters": [kept] if parameters is None else _and_where_it_agrees(parameters, kept),
        "initial_parameters": [whole] if initial is None else _and_where_it_agrees(initial, whole),
    }


def _operation_ways(result: Result) -> tuple[Convention, dict[str, list[Measure | None]]]:
    """The convention of the operation counts, and ways to the speedup and to multiply-adds, best first."""
    counts = {
        name: (_take_printed(result, name), _take_printed(result, f"initial_{name}"))
        for name in ("operations", "multiply_adds", "flops")
    }
    speedup = [
        _take_printed(result, "speedup"),
        _ratio("1 / operations_kept", _WHOLE, _take_printed(result, "operations_kept")),
        _ratio("1 / (1 - operations_pruned)", _WHOLE, _complement(_take_printed(result, "operations_pruned"))),
        *(_ratio(f"initial_{n} / {n}", initial, after) for n, (after, initial) in counts.items()),
    ]
    ratio = _take_narrowest(speedup)
    operations, initial = counts["operations"]
    whole = initial or _derive("operations x speedup", lambda o, s: o * s, operations, ratio)
    convention: Convention = "unknown"
    if whole is not None:
        convention = operations_convention(*result.pair, whole.value)
    elif counts["multiply_adds"][0] or counts["multiply_adds"][1]:
        convention = "multiply-adds"
    elif counts["flops"][0] or counts["flops"][1]:
        convention = "FLOPs, two per multiply-add"
    return convention, {
        "speedup": speedup,
        "multiply_adds": _multiply_adds(counts, 0, convention, operations),
        "initial_multiply_adds": _multiply_adds(counts, 1, convention, whole),
    }


def _multiply_adds(
    counts: dict[str, tuple[Measure | None, Measure | None]],
    which: int,
    convention: Convention,
    operations: Measure | None,
) -> list[Measure | None]:
    """Ways to a count of multiply-adds; operations of unknown convention give none."""
    factor = FACTORS.get(convention)
    return [
        counts["multiply_adds"][which],
        _derive("flops / 2", lambda f: f / 2, counts["flops"][which]),
        _derive(f"operations / {factor} ({convention})", lambda o: o / factor, operations) if factor else None,
    ]
