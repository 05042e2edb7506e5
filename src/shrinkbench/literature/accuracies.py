"""Accuracies against those of the other papers on the same network, and against the standard network.

An accuracy alone is rarely impossible: 10.1 % is one. Beside ten papers that have 88 to 91 % for the network,
it is likely the error in place of the accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from shrinkbench.literature.corpus import Corpus, Finding
from shrinkbench.literature.normalise import Normalised
from shrinkbench.literature.schema import UNIDENTIFIED, Fact

UNLIKE = 0.10
"""How far initial accuracies of one network may be apart: recipes, crops and libraries differ by less."""
ALIKE = 0.05
"""How near a pruned network's accuracy comes to the unpruned one's, where another reading explains it."""
_SHARE = "a fraction in place of a percentage"


@dataclass(frozen=True)
class _Usual:
    """What others have for a network, as a fraction classified right, and in words; ``sources`` counts them."""

    value: float
    told: str
    sources: int


def find_unlikely_accuracies(corpus: Corpus, results: tuple[Normalised, ...]) -> Iterator[Finding]:
    """Accuracies that are unlike those of other papers, of published lists, or of the result before pruning."""
    stated, reached = _stated(results), _reached(results)
    seen: set[int] = set()
    for n in results:
        if UNIDENTIFIED in n.result.pair:
            continue
        for top in ("top1", "top5"):
            usual = _find_usual(corpus, stated, n, top)
            before = _fact_of(n, f"initial_{top}")
            problem = _why_unlike(before, usual) if before and usual else ""
            if before and problem and id(before) not in seen:
                seen.add(id(before))
                yield Finding("unlikely-accuracy", n.result.where, problem)
            after = _fact_of(n, top)
            start = usual if problem or before is None else _from_itself(before)
            others = reached.get(_method_of(n, top), [])
            problem = _why_misread(after, start, others) if after and start else ""
            if after and problem and id(after) not in seen:
                seen.add(id(after))
                yield Finding("unlikely-accuracy", n.result.where, problem)


def _stated(results: Iterable[Normalised]) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """Initial accuracies by dataset, network and kind, then by paper; only printed ones."""
    stated: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for n in results:
        for top in ("top1", "top5"):
            fact = _fact_of(n, f"initial_{top}")
            if fact is not None:
                of_pair = stated.setdefault((*n.result.pair, top), {})
                of_pair.setdefault(n.result.paper, []).append(_right(fact, fact.scaled))
    return stated


def _method_of(n: Normalised, top: str) -> tuple[str, ...]:
    return (n.result.paper, *n.result.pair, n.result.method, n.result.collection, top)


def _reached(results: Iterable[Normalised]) -> dict[tuple[str, ...], list[float]]:
    """Accuracies of pruned networks, method by method."""
    reached: dict[tuple[str, ...], list[float]] = {}
    for n in results:
        for top in ("top1", "top5"):
            fact = _fact_of(n, top)
            if fact is not None:
                reached.setdefault(_method_of(n, top), []).append(_right(fact, fact.scaled))
    return reached


def _find_usual(
    corpus: Corpus, stated: dict[tuple[str, str, str], dict[str, list[float]]], n: Normalised, top: str
) -> _Usual | None:
    """The median of what papers and published lists have; nothing where no other paper and no list has any.

    The paper's own median counts with those of at least two others: with one of two papers wrong, none is the
    middle.
    """
    by_paper = stated.get((*n.result.pair, top), {})
    others = [median(values) for paper, values in by_paper.items() if paper != n.result.paper]
    listed = [
        item.scaled
        for item in corpus.listings
        if (item.dataset, item.architecture) == n.result.pair and item.quantity == top
    ]
    every = [*others, *listed]
    if not every:
        return None
    own = [median(by_paper[n.result.paper])] if len(every) > 1 and n.result.paper in by_paper else []
    texts = []
    if others:
        texts.append(f"{len(others)} other paper{'s have' if len(others) > 1 else ' has'} {_range(others)}")
    if listed:
        texts.append(f"published lists of networks {_range(listed)}")
    return _Usual(median([*every, *own]), f"where {' and '.join(texts)} before pruning", len(every))


def _from_itself(before: Fact) -> _Usual:
    value = _right(before, before.scaled)
    return _Usual(value, f"where the network has {_range([value])} before pruning", 1)


def _why_unlike(fact: Fact, usual: _Usual) -> str:
    """What is wrong with an initial accuracy, if anything.

    Where one other source is all there is, the lower of the two is the doubtful one.
    """
    apart = _right(fact, fact.scaled) - usual.value
    likely = _explain(fact, usual.value, UNLIKE)
    is_small = _SHARE in likely  # an error of 0.1 % where 10 % are usual is near it, but not like it
    if (abs(apart) <= UNLIKE and not is_small) or (usual.sources == 1 and apart > 0 and not is_small):
        return ""
    return _tell(fact, usual, likely or "another network, another metric or a misprint")


def _why_misread(fact: Fact, start: _Usual, others: Iterable[float]) -> str:
    """What is wrong with the accuracy of a pruned network, if another reading explains how low it is.

    A network may have lost so much; where ``others`` of its method lie between, its curve just falls.
    """
    right = _right(fact, fact.scaled)
    likely = _explain(fact, start.value, ALIKE)
    falls = any(right + UNLIKE < other < start.value - UNLIKE for other in others)
    if not likely or falls or (start.value - right <= 2 * UNLIKE and _SHARE not in likely):
        return ""
    return _tell(fact, start, f"{likely}, unless the network has collapsed")


def _tell(fact: Fact, usual: _Usual, likely: str) -> str:
    return (
        f"{fact.quantity} = {fact.value} {fact.unit} {usual.told}: likely {likely}; "
        "correct it, or list it in errata.csv"
    )


def _explain(fact: Fact, usual: float, tolerance: float) -> str:
    """Which misreading of ``fact`` would make it like ``usual``, in words; empty where none does."""
    is_error = fact.quantity.endswith("error")
    this, other = ("an error", "an accuracy") if is_error else ("an accuracy", "an error")
    readings = {f"{other} in place of {this}": 1 - fact.scaled}
    if fact.unit == "percent":
        readings[_SHARE] = 100 * fact.scaled
    wanted = 1 - usual if is_error else usual
    room = min(tolerance, wanted / 2)  # an error of 2 % is near one of 10 %, but not like it
    for likely, value in readings.items():
        if abs(value - wanted) <= room and abs(value - wanted) < abs(fact.scaled - wanted):
            return f"{likely} ({100 * value:.4g} %)"
    return ""


def _fact_of(n: Normalised, quantity: str) -> Fact | None:
    """The printed accuracy or error of ``quantity``."""
    return n.result.facts.get(quantity) or n.result.facts.get(f"{quantity}_error")


def _right(fact: Fact, value: float) -> float:
    """The fraction classified right that ``value`` of ``fact`` means."""
    return 1 - value if fact.quantity.endswith("error") else value


def _range(values: list[float]) -> str:
    low, high = f"{100 * min(values):.4g}", f"{100 * max(values):.4g}"
    return f"{low} %" if low == high else f"{low} to {high} %"
