"""Results as if every network of one name had begun the same: the standard initial models of Figures 1 and 5.

Papers report sizes as fractions of networks that differ although they share a name. Each fraction is multiplied
by one standard initial value: the median over the papers that report one (Section 3.3, footnote 1); each paper
counts once, by its own median. Where no paper reports a value, the published lists of networks give it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from statistics import median

from shrinkbench.literature.corpus import Corpus
from shrinkbench.literature.curves import Pair, PlacedResult, PublishedCurve, group_curves
from shrinkbench.literature.filters import Extract, extract, fits
from shrinkbench.literature.normalise import Normalised
from shrinkbench.literature.rules import Family

INITIAL = {
    "parameters": "initial_parameters",
    "multiply_adds": "initial_multiply_adds",
    "top1": "initial_top1",
    "top5": "initial_top5",
}
_LISTED = {"parameters": "parameters", "multiply_adds": "operations", "top1": "top1", "top5": "top5"}


@dataclass(frozen=True)
class StandardModel:
    """The standard initial values of one pair.

    ``papers`` counts those behind each, 0 for a published list; ``errata`` the corrected numbers behind each.
    """

    pair: Pair
    values: dict[str, float]
    papers: dict[str, int]
    errata: dict[str, int]


@dataclass(frozen=True)
class ScaledPoint:
    """A network at ``size`` (parameters or multiply-adds) and accuracy, fractions in [0, 1]."""

    name: str
    size: float
    accuracy: float
    errata: int = 0


@dataclass(frozen=True)
class FamilyPanel:
    """One family in one panel of Figure 1: unpruned networks by size, and pruned ones scaled to standard."""

    family: Family
    size: str
    accuracy: str
    unpruned: tuple[ScaledPoint, ...]
    pruned: tuple[ScaledPoint, ...]


def standard_model(corpus: Corpus, results: Iterable[Normalised], pair: Pair) -> StandardModel:
    """The standard initial model of ``pair`` from ``results``, then from the published lists."""
    values, papers, errata = {}, {}, {}
    on_pair = [n for n in results if n.result.pair == pair]
    for name, quantity in INITIAL.items():
        by_paper: dict[str, list[float]] = {}
        for n in on_pair:
            value = n.value(quantity)
            if value is not None:
                by_paper.setdefault(n.result.paper, []).append(value)
        errata[name] = sum(n.measures[quantity].errata for n in on_pair if quantity in n.measures)
        listed = [
            item.scaled
            for item in corpus.listings
            if (item.dataset, item.architecture) == pair and item.quantity == _LISTED[name]
        ]
        if by_paper:
            values[name] = median(median(reported) for reported in by_paper.values())
            papers[name] = len(by_paper)
        elif listed:
            values[name] = median(listed)
            papers[name] = 0
    return StandardModel(pair, values, papers, errata)


def scale_to_standard(
    result: Normalised, standard: StandardModel, size: str, accuracy: str
) -> PlacedResult | None:
    """``result`` with its size and accuracy as if it had begun as ``standard``; nothing where a value lacks."""
    ratio = result.measures.get({"parameters": "compression", "multiply_adds": "speedup"}[size])
    change = result.measures.get(f"{accuracy}_change")
    if ratio is None or change is None or not {size, accuracy} <= standard.values.keys():
        return None
    return PlacedResult(
        result,
        standard.values[size] / ratio.value,
        standard.values[accuracy] + change.value,
        change.spread,
        standard.errata[size] + standard.errata[accuracy] + ratio.errata + change.errata,
    )


def family_panels(
    corpus: Corpus, *, keep: Collection[str] = ()
) -> tuple[tuple[FamilyPanel, ...], Extract, tuple[StandardModel, ...]]:
    """Figure 1: every family against parameters and multiply-adds, with the standard models used."""
    used = extract(corpus, "curves", keep=keep)
    standards: dict[Pair, StandardModel] = {}
    panels = []
    for accuracy in ("top1", "top5"):
        for size in ("parameters", "multiply_adds"):
            for family in corpus.rules.families:
                pruned = []
                for n in used.results:
                    if n.result.architecture in family.architectures and n.result.dataset == _dataset(
                        corpus, family
                    ):
                        if n.result.pair not in standards:
                            standards[n.result.pair] = standard_model(corpus, used.results, n.result.pair)
                        place = scale_to_standard(n, standards[n.result.pair], size, accuracy)
                        if place is not None:
                            pruned.append(ScaledPoint(n.result.architecture, place.x, place.y, place.errata))
                unpruned = _find_unpruned(corpus, family, size, accuracy)
                panels.append(FamilyPanel(family, size, accuracy, unpruned, tuple(pruned)))
    return tuple(panels), used, tuple(standards.values())


def _dataset(corpus: Corpus, family: Family) -> str:
    """The dataset of a family's published list."""
    return next((item.dataset for item in corpus.listings if item.catalogue == family.catalogue), "")


def _find_unpruned(corpus: Corpus, family: Family, size: str, accuracy: str) -> tuple[ScaledPoint, ...]:
    listed: dict[str, dict[str, float]] = {}
    for item in corpus.listings:
        if item.catalogue == family.catalogue and item.architecture in family.architectures:
            listed.setdefault(item.architecture, {})[item.quantity] = item.scaled
    points = [
        ScaledPoint(name, values[_LISTED[size]], values[accuracy])
        for name, values in listed.items()
        if {_LISTED[size], accuracy} <= values.keys()
    ]
    return tuple(sorted(points, key=lambda point: point.size))


def variability_curves(
    corpus: Corpus, *, keep: Collection[str] = ()
) -> tuple[tuple[PublishedCurve, ...], tuple[PublishedCurve, ...], Extract, StandardModel | None]:
    """Figure 5: one network pruned by magnitude in different ways, and by all other methods.

    x is the number of parameters, y top-1 accuracy, both scaled to the standard initial model. The corpus names
    the dataset and network; where it names none there are no curves.
    """
    pair = corpus.rules.variability_pair
    used = extract(corpus, "variability", keep=keep, supplements=True, pair=pair)
    if pair is None:
        return (), (), used, None
    main = [n for n in used.results if not n.result.collection]
    standard = standard_model(corpus, main, pair)
    magnitude: list[PlacedResult] = []
    other: list[PlacedResult] = []
    for n in used.results:
        place = scale_to_standard(n, standard, "parameters", "top1")
        if place is not None:
            is_magnitude = any(fits(where, n) for where in corpus.rules.magnitude)
            (magnitude if is_magnitude else other).append(place)
    return group_curves(corpus, magnitude), group_curves(corpus, other), used, standard
